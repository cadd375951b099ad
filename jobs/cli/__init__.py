"""The `derm` command: every step of the catalog, and the commands around them.

Only the module of the command that was asked for is imported, so `derm --help` stays instant.
"""

import argparse
import contextlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from jobs import exits
from jobs.console import bind_threads, day, out
from jobs.pipelines import catalog
from jobs.pipelines.declarations import Step
from jobs.services import private
from jobs.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command that is not a step.

    Its module has `configure(parser)`, which adds the arguments, and `main(args, settings)`, which
    runs it and returns the exit code.
    """

    name: str
    module: str
    summary: str
    example: str


COMMANDS: tuple[Command, ...] = (
    Command(
        name="accept",
        module="jobs.commands.accept",
        summary="let a day pass a guard that refused it, and record why",
        example="derm accept --ds 2025-03-03 --guard verify.cosine_user --reason 'new season'",
    ),
    Command(
        name="backfill",
        module="jobs.repair.backfill",
        summary="repair corrupted days in order, and publish once at the end",
        example="derm backfill --from 2025-03-03 --to 2025-03-04 --what embeddings",
    ),
    Command(
        name="bootstrap",
        module="jobs.repair.bootstrap",
        summary="begin a new embedding space, and publish it side by side with the present one",
        example="derm bootstrap --ds 2025-03-14 --back 6",
    ),
    Command(
        name="compare",
        module="jobs.commands.compare",
        summary="say what differs, down to the bits, between this home and another one",
        example="derm compare /data/derm-before",
    ),
    Command(
        name="daily",
        module="jobs.commands.daily",
        summary="run days through Airflow, from nothing to a report; then stop everything",
        example="derm daily --dataset kuairand --source ~/kuairand --days 7",
    ),
    Command(
        name="docs",
        module="jobs.cli.reference",
        summary="write the reference pages from the declarations",
        example="derm docs --check",
    ),
    Command(
        name="down",
        module="jobs.commands.down",
        summary="stop Airflow, PostgreSQL and Redis of this home",
        example="derm down",
    ),
    Command(
        name="experiment",
        module="experiments.command",
        summary="compare variants of a design on worlds or data sets, and write the report",
        example="derm experiment upstream --set upstream=cvr --seeds 5 --out docs/experiments",
    ),
    Command(
        name="export",
        module="jobs.commands.export",
        summary="write a day's pool as Parquet, as a NumPy matrix, or for the Embedding Projector",
        example="derm export --upstream ctr --entity pin --ds 2025-03-07 --format npy --out pins",
    ),
    Command(
        name="forget",
        module="jobs.upkeep.forget",
        summary="remove users or Pins from everything, and prove that they are gone",
        example="derm forget --entity user --id u42",
    ),
    Command(
        name="get",
        module="jobs.commands.get",
        summary="read one user from the online store, or one Pin from the index",
        example="derm get user u42 --upstream ctr",
    ),
    Command(
        name="init",
        module="jobs.commands.init",
        summary="declare a pipeline: its data set, recipe and first days",
        example="derm init --dataset simulated --recipe toy",
    ),
    Command(
        name="keep",
        module="jobs.commands.keep",
        summary="let results stand that were made before a harmless change of the code",
        example='derm keep --reason "0.3.1 only renames" --step merge',
    ),
    Command(
        name="metrics",
        module="jobs.commands.metrics",
        summary="print the newest numbers of the pipeline as Prometheus text",
        example="derm metrics --output /var/lib/node_exporter/derm.prom",
    ),
    Command(
        name="plan",
        module="jobs.repair.plan",
        summary="show what a backfill would recompute, and from which state",
        example="derm plan --from 2025-03-03 --to 2025-03-04 --what embeddings --json",
    ),
    Command(
        name="probe",
        module="jobs.commands.probe",
        summary="look at the store, the disk, the steps at work and the day that is due",
        example="derm probe --json",
    ),
    Command(
        name="rank",
        module="jobs.commands.rank",
        summary="bring the rankers up to a released day, and past days that were repaired",
        example="derm rank --ds 2025-03-01",
    ),
    Command(
        name="ready",
        module="jobs.commands.ready",
        summary="say whether the source of a day is whole; exit code 4 while it is not",
        example="derm ready --ds 2025-03-03 --json",
    ),
    Command(
        name="rebucket",
        module="jobs.upkeep.rebucket",
        summary="move the embedding tables to the bucket counts of the recipe",
        example="derm rebucket",
    ),
    Command(
        name="restore",
        module="jobs.repair.restore",
        summary="bring an online store that has lost users back, and keep the rollback",
        example="derm restore",
    ),
    Command(
        name="retain",
        module="jobs.upkeep.retain",
        summary="drop what retention no longer keeps, and free the disk",
        example="derm retain --dry-run",
    ),
    Command(
        name="rollback",
        module="jobs.commands.rollback",
        summary="make the release before the current one current again",
        example="derm rollback",
    ),
    Command(
        name="run",
        module="jobs.commands.run",
        summary="run the steps of a range of days in order, without Airflow",
        example="derm run --from 2025-03-01 --to 2025-03-07",
    ),
    Command(
        name="search",
        module="jobs.commands.search",
        summary="retrieve Pins for a user from the current index",
        example="derm search --user u42 -k 10 --upstream ctr",
    ),
    Command(
        name="skip",
        module="jobs.commands.skip",
        summary="go past a day whose events will never come: everybody is carried over",
        example="derm skip --ds 2025-03-03 --reason 'the site was down'",
    ),
    Command(
        name="status",
        module="jobs.commands.status",
        summary="say what is published now, how each day stands, and what to run next",
        example="derm status --days 14",
    ),
    Command(
        name="tables",
        module="jobs.commands.tables",
        summary="serve id tables from shards, publish a version of them, go back, look",
        example="derm tables publish 2025-03-07",
    ),
    Command(
        name="up",
        module="jobs.commands.up",
        summary="start Airflow's UI and Redis, and leave them running",
        example="derm up",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run one command, return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in argv
    try:
        bind_threads()
        args = build_parser(argv[0] if argv else "").parse_args(argv)
        _configure_logging()
        settings = Settings.from_environment()
        private.close_to_others(settings.home)
        module = importlib.import_module(args.module)
        return int(module.main(args, settings))
    except KeyboardInterrupt:
        sys.stderr.write("derm: interrupted; the same command goes on where it stopped\n")
        return exits.INTERRUPTED
    except SystemExit as end:
        # The console of `rich` ends the program by itself when its reader leaves.
        if isinstance(end.__context__, BrokenPipeError):
            return exits.READER_LEFT
        raise
    except Exception as error:
        return _failed(error, as_json=as_json)


def _failed(error: Exception, *, as_json: bool) -> int:
    """Say what ended the command; the exit code."""
    if os.environ.get("DERM_DEBUG"):
        logging.error("the command ended here", exc_info=error)
    if exits.abandon_output() and isinstance(error, BrokenPipeError):
        return exits.READER_LEFT
    explained = exits.explain(error)
    if as_json:
        with contextlib.suppress(OSError):
            out(json.dumps({"error": vars(explained), "exit_code": explained.exit_code}))
        exits.abandon_output()
    sys.stderr.write(f"derm: {explained}\n")
    return explained.exit_code


def program() -> NoReturn:
    """The program `derm`: a command as a process of its own."""
    code = main()
    exits.finish()
    os._exit(code)


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """The parser of `derm`; only the chosen command has its arguments."""
    parser = argparse.ArgumentParser(
        prog="derm",
        description="Learn, smooth and publish user and Pin embeddings, a day at a time.",
        epilog="example: derm run --from 2025-03-01 --to 2025-03-07",
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for step in catalog.every_step():
        example = f"derm {step.name} --ds 2025-03-01"
        command = _add(parsers, step.name, step.summary, example, step.command)
        command.set_defaults(step=step)
        if step.name == chosen:
            _configure_step(command, step)
    for entry in COMMANDS:
        command = _add(parsers, entry.name, entry.summary, entry.example, entry.module)
        if entry.name == chosen:
            importlib.import_module(entry.module).configure(command)
    return parser


def _add(
    parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    example: str,
    module: str,
) -> argparse.ArgumentParser:
    parser = parsers.add_parser(
        name, help=summary, description=summary, epilog=f"example: {example}"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(module=module)
    return parser


def _configure_step(parser: argparse.ArgumentParser, step: Step) -> None:
    module = importlib.import_module(step.command)
    configure = getattr(module, "configure", None)
    needs_day = not configure or getattr(module, "NEEDS_DAY", False)
    parser.add_argument("--ds", required=needs_day, type=day, help="the day, YYYY-MM-DD")
    if step.per_upstream:
        parser.add_argument("--upstream", metavar="NAME", help="one model; default: all")
    if step.per_ranker:
        names = ("--ranker", "--upstream")
        parser.add_argument(*names, dest="upstream", metavar="NAME", help="one; default: all")
    parser.add_argument("--force", action="store_true", help="run even if nothing changed")
    if configure:
        configure(parser)


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.DEBUG if os.environ.get("DERM_DEBUG") else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    # Each variant of faiss that this CPU lacks would be announced.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
