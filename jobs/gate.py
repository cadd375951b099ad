"""Gate: yesterday must be released, and still follow from its inputs.

A manifest that merely exists is not enough: after yesterday's data was repaired, its pool is of a
lineage that no longer holds, and today must not be built on it.
"""

from feature_store.contracts.base import UPSTREAMS, shift_day
from feature_store.contracts.errors import GuardFailed
from jobs import catalog
from jobs.context import Outcome, RunContext
from jobs.runner import is_current, open_context, resolve_inputs


def run(ctx: RunContext) -> Outcome:
    """Check every step of yesterday.

    Raises:
        MissingInput: yesterday was not released.
        GuardFailed: yesterday was released from inputs that have changed since.
    """
    if ctx.is_first_day:
        return Outcome(outputs=())
    yesterday = shift_day(ctx.ds, -1)
    ctx.artifact("release", -1)
    for step in catalog.steps_for(ctx.home.dataset):
        if not step.outputs or step.name == "report":
            continue
        for upstream in UPSTREAMS if step.per_upstream else (None,):
            view = open_context(ctx.settings, yesterday, upstream)
            manifest = ctx.manifests.get(step.name, yesterday, upstream)
            digest = ctx.recipe.digest(step.recipe_parts)
            if manifest and is_current(manifest, resolve_inputs(view, step), digest):
                continue
            name = f"{step.name} {upstream}" if upstream else step.name
            raise GuardFailed(
                f"{name} of {yesterday} is not current",
                where=str(ctx.manifests.path(step.name, yesterday, upstream)),
                expected="a result that follows from today's inputs and recipe",
                found="no result" if manifest is None else "inputs or recipe changed since it ran",
                hint=f"derm run --from {yesterday} --to {yesterday}",
            )
    return Outcome(outputs=())
