"""`derm backfill`: repair days in order, in this process, and publish once at the end.

The plan and how far it has come are in `backfill.json` below the home. Killed anywhere, the same
command continues; retention removes nothing that a plan on disk still needs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.base import Contract
from feature_store.contracts.errors import InputError, ManifestCorrupt
from jobs import catalog, plan
from jobs.cli import out
from jobs.manifests import write_atomic
from jobs.run_step import show
from jobs.runner import StepResult, run_step
from jobs.settings import Settings


class Progress(Contract):
    """A backfill that has begun: its plan, and how many steps of it are done."""

    plan: plan.BackfillPlan
    done: int = 0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm backfill`."""
    plan.configure(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the plan, do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Show the plan, ask, execute it or continue it."""
    progress = load(settings.home)
    wanted = plan.days_of(args)
    if progress is None:
        progress = Progress(plan=plan.from_arguments(args, settings))
    elif (progress.plan.corrupted, progress.plan.what) != (wanted, args.what):
        raise InputError(
            "another backfill has begun and is not finished",
            where=str(path(settings.home)),
            expected=f"--from {progress.plan.corrupted[0]} --to {progress.plan.corrupted[-1]}"
            f" --what {progress.plan.what}",
            found=f"--from {args.first} --to {args.last} --what {args.what}",
            hint="finish it first, or remove the file to abandon it",
        )
    out(progress.plan.model_dump_json() if args.json else plan.render(progress.plan))
    if args.dry_run:
        return 0
    if not args.yes and not _agreed(progress):
        out("nothing was changed")
        return 0
    execute(settings, progress, report=lambda result: show(result, as_json=args.json))
    return 0


def execute(
    settings: Settings, progress: Progress, *, report: Callable[[StepResult], None]
) -> None:
    """Run the steps that are not done yet; the first error stops, and the same call continues.

    Raises:
        DermError: a step failed or a guard refused its result; nothing was published.
    """
    steps = progress.plan.steps
    for number in range(progress.done, len(steps)):
        save(settings.home, progress.model_copy(update={"done": number}))
        planned = steps[number]
        step = catalog.step(planned.step)
        report(run_step(settings, step, planned.ds, planned.upstream, force=planned.force))
    path(settings.home).unlink(missing_ok=True)


def path(home: Path) -> Path:
    """Where the progress of a backfill is."""
    return home / "backfill.json"


def load(home: Path) -> Progress | None:
    """The backfill that has begun, if any.

    Raises:
        ManifestCorrupt: the file cannot be read back.
    """
    file = path(home)
    if not file.exists():
        return None
    try:
        return Progress.model_validate_json(file.read_text())
    except ValidationError as error:
        raise ManifestCorrupt(
            "the progress of a backfill cannot be read",
            where=str(file),
            found=str(error),
            hint="remove the file and start the backfill again",
        ) from error


def save(home: Path, progress: Progress) -> None:
    """Record how far a backfill has come."""
    write_atomic(path(home), progress.model_dump_json(indent=2) + "\n")


def _agreed(progress: Progress) -> bool:
    left = len(progress.plan.steps) - progress.done
    return input(f"Run {left} steps? Readers keep what is published until the end. [y/N] ") == "y"
