"""What has begun and is not finished: a backfill or bootstrap with its plan, a deletion."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract, Day, Upstream, days_between
from feature_store.contracts.errors import GuardFailed, InputError, ManifestCorrupt
from feature_store.contracts.manifests import Artifact
from jobs.paths import HomePaths
from jobs.settings import Settings

What = Literal["labels", "features", "embeddings", "space"]


class PlannedStep(Contract):
    """One step to run, whatever its record says: what is repaired is not believed.

    Attributes:
        snapshot_of: the later day whose snapshot embeds the day; None for the day's own.
        keep: do not run it: its result stands, although what it was made from is repaired now.
    """

    step: str
    ds: Day
    upstream: Upstream | None
    snapshot_of: Day | None = None
    keep: bool = False
    writes: tuple[str, ...]
    rows: int
    seconds: float


class BackfillPlan(Contract):
    """What a backfill does, in order.

    Attributes:
        corrupted: days whose data was wrong; or the day a new space is trained on (`space`).
        base: the last good day: its pools (and snapshots, when retraining) are the starting state;
            None when everything is recomputed from the first day.
        steps: in the order in which they run; only the last day is published.
    """

    corrupted: tuple[Day, ...]
    what: What
    retrain: bool
    base: Day | None
    first: Day
    last: Day
    steps: tuple[PlannedStep, ...]

    @property
    def seconds(self) -> float:
        """Estimated time, from what the same steps took before."""
        return sum(s.seconds for s in self.steps)


class Repair(Contract):
    """A backfill or bootstrap that has begun: its plan, and how far it is.

    Attributes:
        done: how many steps of the plan are done.
        begun_at: when it began, which tells it from every other one.
        before: what the steps of the plan had recorded before.
        made: what each step that is done has written, by `key`.
    """

    plan: BackfillPlan
    done: int = 0
    begun_at: str = ""
    before: tuple[Artifact, ...] = ()
    made: dict[str, tuple[Artifact, ...]] = Field(default_factory=dict)


def key(planned: PlannedStep) -> str:
    """The name of a planned step among what was made."""
    return "/".join(filter(None, (planned.ds, planned.step, planned.upstream)))


def command(made: BackfillPlan) -> str:
    """The command that makes, or continues, a plan."""
    if made.what == "space":
        return bootstrap_command(made.first, made.last)
    wrong = made.corrupted
    return backfill_command(wrong[0], wrong[-1], made.what, retrain=made.retrain)


def bootstrap_command(first: str, last: str) -> str:
    """The command that begins a space with the pools of `first`, and publishes `last`."""
    return f"derm bootstrap --ds {last} --back {len(days_between(first, last)) - 1}"


def backfill_command(first: str, last: str, what: str, *, retrain: bool) -> str:
    """The command that repairs the days from `first` to `last`."""
    models = "--retrain" if retrain else "--no-retrain"
    return f"derm backfill --from {first} --to {last} --what {what} {models}"


def path(home: Path) -> Path:
    """Where the progress of a backfill is."""
    return HomePaths(home).backfill


def deletion_path(home: Path) -> Path:
    """Where a forget that has begun is recorded; there is no file when none is under way."""
    return HomePaths(home).deletion


def load(home: Path) -> Repair | None:
    """The backfill that has begun, if any.

    Raises:
        ManifestCorrupt: the file cannot be read back.
    """
    file = path(home)
    if not file.exists():
        return None
    try:
        return Repair.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ManifestCorrupt(
            "the progress of a backfill cannot be read",
            where=str(file),
            found=str(error),
            hint="remove the file and start the backfill again",
        ) from error


def save(home: Path, progress: Repair) -> None:
    """Record how far a backfill has come."""
    write_atomic(path(home), progress.model_dump_json(indent=2) + "\n")


def refuse(home: Path, ds: str) -> None:
    """Refuse to touch a day that an unfinished repair recomputes, or one after it.

    Args:
        ds: the last of the days that are to be touched.

    Raises:
        GuardFailed: naming the command that continues the repair.
    """
    repair = load(home)
    if repair is None or ds < (first := min(s.ds for s in repair.plan.steps)):
        return
    raise GuardFailed(
        "a backfill has begun and is not finished",
        where=str(path(home)),
        expected=f"no step of {first} or a later day runs between its steps",
        found=f"{repair.done} of {len(repair.plan.steps)} steps done",
        hint=f"let it finish; if it does not run: {command(repair.plan)}; "
        "then run the day again from its gate (in Airflow: clear every task of its run)",
    )


def another_has_begun(settings: Settings, begun: BackfillPlan, asked: str) -> InputError:
    """What is said when another plan is under way than the one that is asked for."""
    return InputError(
        "another backfill has begun and is not finished",
        where=str(path(settings.home)),
        expected=command(begun),
        found=asked,
        hint="finish it first, or remove the file to abandon it",
    )
