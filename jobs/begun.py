"""The backfill or bootstrap that has begun and is not finished: its plan, and how far it is."""

from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.base import Contract, days_between
from feature_store.contracts.errors import InputError, ManifestCorrupt
from jobs import plan
from jobs.manifests import write_atomic
from jobs.settings import Settings


class Progress(Contract):
    """A backfill that has begun: its plan, and how many steps of it are done."""

    plan: plan.BackfillPlan
    done: int = 0


def command(made: plan.BackfillPlan) -> str:
    """The command that makes, or continues, a plan."""
    if made.what == "space":
        back = len(days_between(made.first, made.last)) - 1
        return f"derm bootstrap --ds {made.last} --back {back}"
    retrain = "--retrain" if made.retrain else "--no-retrain"
    days = f"--from {made.corrupted[0]} --to {made.corrupted[-1]}"
    return f"derm backfill {days} --what {made.what} {retrain}"


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


def another_has_begun(settings: Settings, begun: plan.BackfillPlan, asked: str) -> InputError:
    """What is said when another plan is under way than the one that is asked for."""
    return InputError(
        "another backfill has begun and is not finished",
        where=str(path(settings.home)),
        expected=command(begun),
        found=asked,
        hint="finish it first, or remove the file to abandon it",
    )
