"""What to train on, decided from manifests alone, and the id that follows from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.artifacts import Counts, Events, Graph, Mark, Rows, Snapshot
from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.digests import content_digest
from feature_store.contracts.edges import edge_kinds
from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Artifact, SnapshotManifest
from jobs.engine.context import RunContext
from jobs.engine.snapshots import SnapshotStore, weights_digest
from jobs.pipelines import catalog
from jobs.steps.model_inputs import family_of

_TABLES = (Events(), Rows("users"), Rows("pins"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One pass over one day, or over a part of it.

    Attributes:
        half: of the day, by when its rows became known.
        number: how often the training has gone over its days before.
    """

    kind: Literal["train", "score"]
    ds: str
    half: Literal["all", "first", "second"] = "all"
    number: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What an attempt will do, and the id of what comes out of it.

    Attributes:
        parent: the snapshot it continues from; None trains from scratch.
        days: trained on, oldest first.
    """

    snapshot_id: str
    parent: SnapshotManifest | None
    days: tuple[str, ...]
    phases: tuple[Pass, ...]


def plan_training(ctx: RunContext, store: SnapshotStore) -> Plan:
    """Decide what to train on, from the manifests alone.

    Raises:
        MissingInput: a table or yesterday's snapshot is not there.
        InputError: yesterday's snapshot has seen the day, or is of another model.
    """
    recorded = ctx.previous(Snapshot(ctx.upstream))
    parent = store.of(recorded) if recorded else None
    passes = ctx.pipeline.upstream(ctx.own_upstream).passes if parent is None else 1
    days: tuple[str, ...]
    if parent:
        _check_parent(ctx, parent)
    if _reads_edges(ctx):
        # The graph of a day remembers those before it.
        days, phases = (ctx.ds,), _one_phase(ctx.ds, parent)
        read = [ctx.artifact(Graph())]
    else:
        days = _days_since(ctx, parent) if parent else window_days(ctx)
        phases = _phases(days, parent, passes)
        read = [
            *_referred_to(ctx, days[0]),
            *_looked_back_on(ctx, days[0]),
            *(a for d in days for a in _tables_of(ctx, d)),
        ]
    inputs = [f"{a.name}:{a.ds}:{a.digest}" for a in (*read, *_pools_of(ctx))]
    if passes > 1:
        inputs.append(f"passes:{passes}")
    digest = content_digest(
        ctx.own_recipe.digest(("model", "training")),
        model_digest(ctx),
        str(ctx.home.seed),
        ctx.code_digest(catalog.step("train")),
        weights_digest(parent) if parent else "",
        parent.snapshot_id if parent else "",
        *inputs,
    )
    return Plan(snapshot_id=f"{ctx.ds}-{digest}", parent=parent, days=days, phases=phases)


def model_digest(ctx: RunContext) -> str:
    """Digest of everything that shapes the weights: the model, the features, the labels."""
    spec = ctx.spec
    inputs = (*spec.inputs_of("user"), *spec.inputs_of("pin"), *spec.inputs_of("context"))
    pools = (pool.feature for pool in ctx.pool_inputs)
    parts = [f.model_dump_json() for f in (*inputs, *pools)]
    labels = [x.model_dump_json() for x in ctx.spec.labels_of(ctx.own_upstream)]
    if _reads_edges(ctx):
        parts += [" ".join(kind) for kind in edge_kinds(spec)]
    return content_digest(
        str(family_of(ctx).version),
        ctx.own_recipe.digest(("model", "counting")),
        *ctx.spec.surfaces,
        *parts,
        *labels,
    )


def _reads_edges(ctx: RunContext) -> bool:
    return ctx.pipeline.upstream(ctx.own_upstream).reads == "edges"


def window_days(ctx: RunContext) -> tuple[str, ...]:
    """The validated days of the window that ends with today, oldest first.

    Raises:
        MissingInput: today was not validated.
    """
    ctx.artifact(Mark("validated"))
    first = max(shift_day(ctx.ds, 1 - ctx.recipe.training.window_days), ctx.home.first_ds)
    days = days_between(first, ctx.ds)
    return tuple(d for d in days if ctx.manifests.get("validate", d, None))


def _days_since(ctx: RunContext, parent: SnapshotManifest) -> tuple[str, ...]:
    """The days to learn from after a snapshot: today, and those on which the upstream rested."""
    if ctx.pipeline.upstream(ctx.own_upstream).every_days == 1:
        return (ctx.ds,)
    days = days_between(shift_day(parent.seen_days[-1], 1), ctx.ds)
    return tuple(d for d in days if ctx.manifests.get("validate", d, None))


def _one_phase(ds: str, parent: SnapshotManifest | None) -> tuple[Pass, ...]:
    """Of a graph: it is scored where there is a model, then learned."""
    learned = Pass(kind="train", ds=ds)
    return (Pass(kind="score", ds=ds), learned) if parent else (learned,)


def _phases(
    days: tuple[str, ...], parent: SnapshotManifest | None, passes: int
) -> tuple[Pass, ...]:
    """Train on all but the newest day, score that one, as often as asked for; then train on it."""
    *earlier, today = days
    # Of the only day there is, the second half stands for the day that follows.
    alone = not parent and not earlier
    scored: Literal["all", "second"] = "second" if alone else "all"
    found: list[Pass] = []
    for number in range(passes):
        if alone:
            found.append(Pass(kind="train", ds=today, half="first", number=number))
        found += [Pass(kind="train", ds=ds, number=number) for ds in earlier]
        found.append(Pass(kind="score", ds=today, half=scored, number=number))
    return (*found, Pass(kind="train", ds=today, half=scored))


def _check_parent(ctx: RunContext, parent: SnapshotManifest) -> None:
    if ctx.ds in parent.seen_days:
        raise InputError(
            f"snapshot {parent.snapshot_id} has already seen {ctx.ds}",
            expected="every day is trained on once in a lineage",
            found=f"seen days {parent.seen_days[0]} .. {parent.seen_days[-1]}",
            hint=f"train yesterday again: derm train --ds {shift_day(ctx.ds, -1)} --force",
        )
    if parent.recipe != model_digest(ctx):
        raise InputError(
            f"snapshot {parent.snapshot_id} is of another model",
            expected=f"model and features with digest {model_digest(ctx)}",
            found=parent.recipe,
            hint=f"a changed model begins a new space: derm bootstrap --ds {ctx.ds}",
        )


def _referred_to(ctx: RunContext, first: str) -> Iterator[Artifact]:
    """What late labels may refer to before the first day: users, Pins and counts of their day."""
    attribution, begin = ctx.spec.attribution_days, ctx.home.first_ds
    for ds in days_between(shift_day(first, -attribution - 1), shift_day(first, -1)):
        for step, names in (
            ("ingest", (Rows("users"), Rows("pins"))),
            ("count", tuple(Counts(e) for e in ENTITIES)),
        ):
            if attribution and ds >= begin and (made := ctx.manifests.get(step, ds, None)):
                yield from (made.output(name) for name in names)


def _looked_back_on(ctx: RunContext, first: str) -> Iterator[Artifact]:
    """The events before the first day that its sequences or edges begin with."""
    offset = 1 - len(days_between(first, ctx.ds))
    for back in range(1, ctx.pipeline.upstream(ctx.own_upstream).history_days):
        if shift_day(first, -back) >= ctx.home.first_ds:
            yield ctx.artifact(Events(), offset - back)


def _tables_of(ctx: RunContext, ds: str) -> tuple[Artifact, ...]:
    """What a day is made of: its tables, and the counts of the day before it."""
    offset = 1 - len(days_between(ds, ctx.ds))
    tables = tuple(ctx.artifact(name, offset) for name in _TABLES)
    if ds <= ctx.home.first_ds:
        return tables
    counts = tuple(ctx.artifact(Counts(e), offset - 1) for e in ENTITIES)
    return tables + counts


def _pools_of(ctx: RunContext) -> tuple[Artifact, ...]:
    """The pools of yesterday that a continued training reads."""
    step = catalog.step("train")
    return tuple(
        ctx.artifact(name, ref.offset)
        for ref, name in ctx.pipeline.inputs_of(step, ctx.own_upstream)
        if ref.continued and ctx.is_read(ref, name)
    )
