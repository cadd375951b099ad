"""How the steps of a day stand: done, stale, or missing."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import StepManifest
from jobs.engine.context import RunContext
from jobs.engine.runner import resolve_inputs, why_stale
from jobs.pipelines.declarations import Step

State = Literal["done", "stale", "missing", "past"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One step of one day.

    Attributes:
        state: `stale` when the step finished, but its inputs or recipe changed since, or what it
            wrote is not there any more, or one of its inputs is itself stale or missing. `past`
            when that no longer matters, because a newer day has taken its place; only whoever
            shows days says so.
        manifest: what it recorded; None when missing or unreadable.
        reason: why it is stale; empty when it is not.
    """

    ds: str
    step: Step
    upstream: Upstream | None
    state: State
    manifest: StepManifest | None
    reason: str = ""


def standings(
    ctx: RunContext, days: Sequence[str], steps: Sequence[Step] | None = None
) -> Iterator[Standing]:
    """Every step of the days in order, oldest day first; staleness flows from day to day.

    Args:
        steps: those of rankers, for example; None: those that a release is made of.
    """
    unsettled: set[tuple[str, str]] = set()
    for ds in days:
        for step in ctx.pipeline.steps if steps is None else steps:
            for upstream in ctx.pipeline.upstreams_of(step):
                view = dataclasses.replace(ctx, ds=ds, upstream=upstream)
                found = _standing(view, step, unsettled)
                if found.state != "done":
                    unsettled |= {(n, ds) for n in ctx.pipeline.outputs_of(step, upstream)}
                yield found


def _standing(ctx: RunContext, step: Step, unsettled: set[tuple[str, str]]) -> Standing:
    manifest, reason = None, ""
    state: State = "missing"
    try:
        manifest = ctx.manifests.get(step.name, ctx.ds, ctx.upstream)
        if manifest is not None:
            inputs = resolve_inputs(ctx, step, manifest.inputs)
            reason = why_stale(ctx, step, manifest, inputs) or _unsettled(manifest, unsettled)
            state = "stale" if reason else "done"
    except (MissingInput, ManifestCorrupt) as error:
        state, reason = ("stale", error.what) if manifest else ("missing", "")
    return Standing(
        ds=ctx.ds,
        step=step,
        upstream=ctx.upstream,
        state=state,
        manifest=manifest,
        reason=reason,
    )


def _unsettled(manifest: StepManifest, unsettled: set[tuple[str, str]]) -> str:
    """Why inputs do not hold although they are those that were read; empty when they do."""
    names = [f"{a.name} of {a.ds}" for a in manifest.inputs if (a.name, a.ds) in unsettled]
    return f"{' '.join(names)} is itself stale or missing" if names else ""
