"""The `derm` command."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence

from feature_store.contracts.base import UPSTREAMS, check_day, days_between
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import StepManifest
from jobs import catalog
from jobs.settings import Settings

Command = Callable[[argparse.Namespace, Settings], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one command, return the exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if os.environ.get("DERM_DEBUG") else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    try:
        args.command(args, Settings())
    except DermError as error:
        if args.json:
            _out(json.dumps({"error": vars(error), "exit_code": error.exit_code}))
        sys.stderr.write(f"derm: {error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derm",
        description="Learn, smooth and publish user and Pin embeddings, a day at a time.",
        epilog="example: derm run --from 2025-03-01 --to 2025-03-07",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for step in catalog.STEPS:
        command = _add(commands, step.name, step.summary, _run_step)
        command.add_argument("--ds", required=True, type=_day, help="the day, YYYY-MM-DD")
        if step.per_upstream:
            command.add_argument("--upstream", choices=UPSTREAMS, help="one model; default: both")
        command.add_argument("--force", action="store_true", help="run even if nothing changed")
        command.set_defaults(step=step)
    run = _add(commands, "run", "run the steps of a range of days in order", _run_days)
    run.add_argument("--from", dest="first", required=True, type=_day)
    run.add_argument("--to", dest="last", required=True, type=_day)
    run.add_argument("--steps", help="comma-separated; default: all")
    run.add_argument("--upstream", choices=UPSTREAMS)
    run.add_argument("--force", action="store_true")
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    command: Command,
) -> argparse.ArgumentParser:
    example = f"example: derm {name} --ds 2025-03-01"
    parser = commands.add_parser(name, help=summary, description=summary, epilog=example)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(command=command)
    return parser


def _run_step(args: argparse.Namespace, settings: Settings) -> None:
    from jobs.runner import run_step, upstreams_of

    for upstream in upstreams_of(args.step, getattr(args, "upstream", None)):
        result = run_step(settings, args.step, args.ds, upstream, force=args.force)
        if args.json:
            _out(result.manifest.model_dump_json())
        else:
            _out(_line(result.manifest, skipped=result.skipped))


def _run_days(args: argparse.Namespace, settings: Settings) -> None:
    from jobs.runner import run_step, upstreams_of
    from jobs.settings import Home

    home = Home.load(settings.home)
    wanted = args.steps.split(",") if args.steps else None
    for ds in days_between(args.first, args.last):
        for step in catalog.steps_for(home.dataset):
            if wanted is not None and step.name not in wanted:
                continue
            for upstream in upstreams_of(step, args.upstream):
                result = run_step(settings, step, ds, upstream, force=args.force)
                line = result.manifest.model_dump_json() if args.json else None
                _out(line or _line(result.manifest, skipped=result.skipped))


def _line(manifest: StepManifest, *, skipped: bool) -> str:
    name = " ".join(filter(None, (manifest.ds, manifest.step, manifest.upstream)))
    if skipped:
        return f"{name}: up to date"
    numbers = "  ".join(f"{k}={_number(v)}" for k, v in manifest.metrics.items())
    return f"{name}: done in {manifest.duration_s:.1f} s  {numbers}"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _day(text: str) -> str:
    try:
        return check_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
