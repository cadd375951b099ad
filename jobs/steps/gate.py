"""Gate: yesterday must be released, and still follow from its inputs.

A manifest that merely exists is not enough: after yesterday's data was repaired, its pool is of a
lineage that no longer holds, and today must not be built on it.
"""

from feature_store.contracts.artifacts import ReleaseMark
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed
from jobs.engine.context import Outcome, RunContext
from jobs.engine.staleness import standings
from jobs.engine.unfinished import deletion_path


def run(ctx: RunContext) -> Outcome:
    """Check every step of yesterday.

    Raises:
        MissingInput: yesterday was not released.
        GuardFailed: yesterday was released from inputs that have changed since, or a forget has
            begun and is not finished.
    """
    if deletion_path(ctx.root).exists():
        raise GuardFailed(
            "a forget has begun and is not finished",
            where=str(deletion_path(ctx.root)),
            expected="no day begins between its halves",
            found="the record of an attempt that was interrupted",
            hint="run the same derm forget again",
        )
    if ctx.is_first_day:
        return Outcome(outputs=())
    yesterday = shift_day(ctx.ds, -1)
    ctx.artifact(ReleaseMark(), -1)
    for found in standings(ctx, [yesterday]):
        # A report is a picture, and a gate was passed: nothing of today is built on them.
        if found.state == "done" or found.step.stage in ("gate", "report"):
            continue
        name = " ".join(filter(None, (found.step.name, found.upstream)))
        raise GuardFailed(
            f"{name} of {yesterday} is {found.state}",
            where=str(ctx.manifests.path(found.step.name, yesterday, found.upstream)),
            expected="a result that follows from the inputs and the recipe as they are now",
            found=found.reason or "no result",
            hint=f"derm run --from {yesterday} --to {yesterday}",
        )
    return Outcome(outputs=())
