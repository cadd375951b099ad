"""Runs steps: resolve inputs, skip what is current, run, record.

A step's manifest is written after everything else, so a step without a manifest never finished,
and a step whose recorded inputs and recipe equal today's need not run again.
"""

import dataclasses
import datetime as dt
import importlib
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from feature_store.contracts.artifacts import SOURCE
from feature_store.contracts.base import Upstream, shift_day
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import (
    ContractViolation,
    InputError,
    ManifestCorrupt,
    MissingInput,
)
from feature_store.contracts.manifests import Artifact, StepManifest
from feature_store.lake.lake import Lake
from jobs.datasets.registry import dataset_spec
from jobs.engine import kept, locks, machine, presence, skips, sources, spaces
from jobs.engine.attempts import attempt
from jobs.engine.context import Outcome, RunContext
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import catalog, daily, tasks
from jobs.pipelines.declarations import Step
from jobs.recipes import Recipe, recipe_of
from jobs.settings import Home, Settings

log = logging.getLogger("derm")

_shared_lake: ContextVar[Lake | None] = ContextVar("_shared_lake", default=None)
_SHORTEST_LIMIT_S = 600.0
_TIMES_AS_LONG = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """A finished step; `skipped` when its recorded result was current.

    Attributes:
        elsewhere: how the machine differs that a skipped result was made on, where that decides
            its last bits: the result stands.
    """

    manifest: StepManifest
    skipped: bool
    elsewhere: str = ""


def open_context(settings: Settings, ds: str, upstream: Upstream | None = None) -> RunContext:
    """A context for one day of the home that `settings` names."""
    home = Home.load(settings.home)
    chosen = recipe_of(home)
    spec = dataset_spec(home.dataset, home.source, chosen.world(home.dataset), chosen.upstreams)
    _check_upstreams(home, spec)
    _check_retention(chosen, spec)
    pipeline = catalog.pipeline_of(home)
    if upstream and not pipeline.is_ranker(upstream):
        pipeline.upstream(upstream)
    return RunContext(
        settings=settings,
        home=home,
        recipe=chosen.bounded(spec.guards),
        spec=spec,
        lake=_shared_lake.get() or Lake(settings.lake_root),
        manifests=ManifestStore(settings.paths.manifests),
        ds=ds,
        upstream=upstream,
        log=log,
        spaces=spaces.load(settings.home),
    )


@contextmanager
def one_lake(settings: Settings) -> Iterator[None]:
    """Steps that run inside know the lake's tables from each other, and open none of them anew."""
    token = _shared_lake.set(Lake(settings.lake_root))
    try:
        yield
    finally:
        _shared_lake.reset(token)


def _check_upstreams(home: Home, spec: DatasetSpec) -> None:
    """Whether the home's upstreams are those that are declared now.

    Raises:
        InputError: they are not.
    """
    if home.upstreams != spec.declared_upstreams:
        raise InputError(
            "the upstreams that are declared are not those of the home",
            where="home.json",
            expected=" ".join(u.model_dump_json(exclude_defaults=True) for u in home.upstreams),
            found=" ".join(
                u.model_dump_json(exclude_defaults=True) for u in spec.declared_upstreams
            ),
            hint="other upstreams begin in a new home: DERM_HOME=DIR derm init",
        )


def _check_retention(chosen: Recipe, spec: DatasetSpec) -> None:
    """Whether pools are kept for as long as a late label may ask for them.

    Raises:
        InputError: they are not.
    """
    readers = [u.name for u in spec.declared_upstreams if u.pools]
    if readers and chosen.retention.daily_pools <= spec.attribution_days:
        raise InputError(
            f"upstream {readers[0]} reads pools that retention removes too early",
            where=f"recipe {chosen.name}: retention.daily_pools",
            expected=f"more than {spec.attribution_days}: a label may come so many days after its "
            "impression, whose features are as of then",
            found=str(chosen.retention.daily_pools),
        )


def run_step(
    settings: Settings,
    step: Step,
    ds: str,
    upstream: Upstream | None,
    *,
    force: bool,
    repair: str = "",
) -> StepResult:
    """Run one step of one day, unless its recorded result is current.

    Args:
        force: run even when nothing changed, and build on nothing that is there.
        repair: what tells the repair that it is part of from every other one.

    Raises:
        InputError: the day only feeds the training, and the step is for published days.
        DermError: an input is missing or wrong, or a guard refused the result.
    """
    ctx = dataclasses.replace(open_context(settings, ds, upstream), force=force, repair=repair)
    refuse_history(ctx.home, step, ds)
    with locks.step_alone(settings.home, ds, step.name, upstream):
        existing = _on_record(ctx, step)
        inputs = resolve_inputs(ctx, step, existing.inputs if existing else None)
        if existing and not force and is_current(ctx, step, existing, inputs) and step.outputs:
            other = machine.differences(existing.made_on, settings) if step.rounded else ""
            return StepResult(manifest=existing, skipped=True, elsewhere=other)
        module = importlib.import_module(f"jobs.steps.{step.name}")
        return StepResult(
            manifest=record(ctx, step, resolve_inputs(ctx, step), lambda: module.run(ctx)),
            skipped=False,
        )


def _on_record(ctx: RunContext, step: Step) -> StepManifest | None:
    """What the step recorded of the day; forced, a damaged record is none: it is written again.

    Raises:
        ManifestCorrupt: it cannot be trusted.
    """
    try:
        return ctx.manifests.get(step.name, ctx.ds, ctx.upstream)
    except ManifestCorrupt:
        if not ctx.force:
            raise
        return None


def refuse_history(home: Home, step: Step, ds: str) -> None:
    """Refuse a step on a day that only feeds the training.

    Raises:
        InputError: it is such a day, and the step is not one of its few.
    """
    if step.history or ds >= home.start_ds:
        return
    raise InputError(
        f"{ds} is a day of the history: {step.name} does not run on it",
        expected=f"a day from {home.start_ds} on, or one of {' '.join(daily.HISTORY)}",
        found=ds,
        hint="earlier days only feed the first training, which reads all of them",
    )


def keep_result(settings: Settings, step: Step, ds: str, upstream: Upstream | None) -> StepResult:
    """Let what a step made stand, although its inputs have changed since.

    Raises:
        MissingInput: an input is not there, or the step never finished.
    """
    ctx = open_context(settings, ds, upstream)
    existing = ctx.manifests.get(step.name, ds, upstream)
    if existing is None:
        raise MissingInput(f"{step.name} of {ds} made nothing that could be kept")
    inputs = resolve_inputs(ctx, step, existing.inputs)
    ctx.manifests.put(existing.model_copy(update={"inputs": inputs}))
    return StepResult(manifest=existing, skipped=True)


def record(
    ctx: RunContext,
    step: Step,
    inputs: tuple[Artifact, ...],
    work: Callable[[], Outcome],
) -> StepManifest:
    """Do the work of a step, and write its manifest last.

    Raises:
        ContractViolation: it did not write what the catalog declares.
        DamagedFile: an input is not what its step recorded.
    """
    with attempt(ctx.root, step.name, ctx.ds, ctx.upstream, limit_s=_limit_s(ctx, step)):
        return _recorded(ctx, step, inputs, work)


def _recorded(
    ctx: RunContext,
    step: Step,
    inputs: tuple[Artifact, ...],
    work: Callable[[], Outcome],
) -> StepManifest:
    presence.check(ctx, inputs)
    # From here on the partition may be half replaced: what was recorded no longer holds.
    ctx.manifests.remove(step.name, ctx.ds, ctx.upstream)
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    outcome = work()
    check_outputs(ctx, step, outcome.outputs)
    manifest = StepManifest(
        step=step.name,
        ds=ctx.ds,
        upstream=ctx.upstream,
        inputs=(*inputs, *outcome.also_read),
        outputs=outcome.outputs,
        metrics=outcome.metrics,
        recipe=ctx.recipe_digest(step),
        code=ctx.code_digest(step),
        made_on=machine.made_on(ctx.settings, outcome.device),
        started_at=started.isoformat(timespec="seconds"),
        finished_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        duration_s=round(time.perf_counter() - clock, 3),
        timings=outcome.timings,
        accepted=outcome.accepted,
    )
    ctx.manifests.put(manifest)
    return manifest


def _limit_s(ctx: RunContext, step: Step) -> float:
    """After so many seconds a step hangs: many times what it took yesterday, or all it may take."""
    limit = 60.0 * step.timeout_minutes
    try:
        before = ctx.manifests.get(step.name, shift_day(ctx.ds, -1), ctx.upstream)
    except ManifestCorrupt:
        before = None
    if before is None or step.name == tasks.FIRST:
        return limit
    return min(limit, max(_SHORTEST_LIMIT_S, _TIMES_AS_LONG * before.duration_s))


def resolve_inputs(
    ctx: RunContext, step: Step, made_from: Iterable[Artifact] | None = None
) -> tuple[Artifact, ...]:
    """The artifacts a step reads, as their producers recorded them.

    Args:
        made_from: what the step's result was made from; None where there is none. Where a later
            day's artifact may stand in for the day's own, and is among these, it is looked up.

    Raises:
        MissingInput: a producer has not finished.
    """
    recorded = {a.name: a.ds for a in made_from or ()}
    found: list[Artifact] = []
    for ref, name in ctx.pipeline.inputs_of(step, ctx.upstream):
        if ref.chosen and name not in recorded:
            continue
        if name == SOURCE and (source := _source(ctx, made_from)):
            found.append(source)
            continue
        if not ctx.is_read(ref, name):
            continue
        later = ref.or_later and recorded.get(name, "") > ctx.ds
        view = dataclasses.replace(ctx, ds=recorded[name]) if later else ctx
        found.append(view.artifact(name, ref.offset))
    return tuple(found)


def _source(ctx: RunContext, made_from: Iterable[Artifact] | None) -> Artifact | None:
    """What no step makes: the record of a skipped day, or what the user's files hold of it.

    A result that was recorded without a source stands: nobody knows what it was made from.
    """
    if skip := skips.load(ctx.root, ctx.ds):
        return skip.artifact()
    if ctx.pipeline.makes(SOURCE):
        return None
    recorded = next((a for a in made_from or () if a.name == SOURCE), None)
    return sources.of_day(ctx, recorded) if recorded or made_from is None else None


def check_outputs(ctx: RunContext, step: Step, outputs: Sequence[Artifact]) -> None:
    """Compare what a step wrote with what the catalog says it writes.

    Raises:
        ContractViolation: an artifact is missing, undeclared, doubled, or of another day.
    """
    ds, declared = ctx.ds, sorted(ctx.pipeline.outputs_of(step, ctx.upstream))
    written = sorted(a.name for a in outputs)
    if written != declared or any(a.ds != ds for a in outputs):
        raise ContractViolation(
            f"step {step.name} did not write what the catalog declares",
            where="jobs/pipelines",
            expected=f"{' '.join(declared) or 'nothing'} of {ds}",
            found=" ".join(f"{a.name} of {a.ds}" for a in outputs) or "nothing",
        )


def is_current(
    ctx: RunContext, step: Step, manifest: StepManifest, inputs: tuple[Artifact, ...]
) -> bool:
    """Whether a recorded result is there, and follows from the present inputs and recipe."""
    return not why_stale(ctx, step, manifest, inputs)


def why_stale(
    ctx: RunContext, step: Step, manifest: StepManifest, inputs: tuple[Artifact, ...]
) -> str:
    """Why a recorded result does not hold any more; empty when it does."""
    recorded = {(a.name, a.ds): a.digest for a in manifest.inputs}
    present = {(a.name, a.ds): a.digest for a in inputs}
    if recorded != present:
        changed = sorted({name for name, _ in recorded.items() ^ present.items()})
        return f"{' '.join(f'{name} of {ds}' for name, ds in changed)} changed since"
    if manifest.recipe != ctx.recipe_digest(step):
        return "the recipe or the seed changed since"
    if not kept.stands(ctx.root, step.name, manifest.code, ctx.code_digest(step)):
        return "the code of the step changed since (derm keep, where that is harmless)"
    problems = (presence.problem(ctx, a) for a in manifest.outputs)
    return next((p for p in problems if p), "")
