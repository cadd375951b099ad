"""How the steps of a day stand: done, stale, or missing."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import StepManifest
from jobs.engine.context import RunContext
from jobs.engine.runner import is_current, resolve_inputs
from jobs.pipelines.declarations import Step

State = Literal["done", "stale", "missing", "past"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One step of one day.

    Attributes:
        state: `stale` when the step finished, but its inputs or recipe changed since, or one of
            its inputs is itself stale or missing. `past` when that no longer matters, because a
            newer day has taken its place; only whoever shows days says so.
        manifest: what it recorded; None when missing or unreadable.
    """

    ds: str
    step: Step
    upstream: Upstream | None
    state: State
    manifest: StepManifest | None


def standings(ctx: RunContext, days: Sequence[str]) -> Iterator[Standing]:
    """Every step of the days in order, oldest day first; staleness flows from day to day."""
    unsettled: set[tuple[str, str]] = set()
    for ds in days:
        for step in ctx.pipeline.steps:
            for upstream in ctx.pipeline.upstreams_of(step):
                view = dataclasses.replace(ctx, ds=ds, upstream=upstream)
                found = _standing(view, step, unsettled)
                if found.state != "done":
                    unsettled |= {(n, ds) for n in ctx.pipeline.outputs_of(step, upstream)}
                yield found


def _standing(ctx: RunContext, step: Step, unsettled: set[tuple[str, str]]) -> Standing:
    manifest: StepManifest | None = None
    state: State = "missing"
    try:
        manifest = ctx.manifests.get(step.name, ctx.ds, ctx.upstream)
        if manifest is not None:
            settled = not any((a.name, a.ds) in unsettled for a in manifest.inputs)
            current = is_current(ctx, step, manifest, resolve_inputs(ctx, step, manifest.inputs))
            state = "done" if settled and current else "stale"
    except (MissingInput, ManifestCorrupt):
        state = "stale" if manifest else "missing"
    return Standing(ds=ctx.ds, step=step, upstream=ctx.upstream, state=state, manifest=manifest)
