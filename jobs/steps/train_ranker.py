"""Train a ranker: one more day, from yesterday's.

Reads what the day is joined with, and yesterday's ranker; writes one ranker, and beside it one that
reads no vectors, trained on the same rows in the same order, which it is compared with. A ranker
begins anew on its first day, where the space of its vectors begins, and where what it is made of
has changed: then it learns a window of days. An attempt that was killed starts afresh.
"""

import dataclasses
import math

from feature_store.contracts.artifacts import Assembled, Events, RankerWeights
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import GuardFailed, InputError
from feature_store.contracts.manifests import Artifact, SnapshotManifest
from jobs.engine.context import Outcome, RunContext
from jobs.engine.presence import bytes_in
from jobs.engine.snapshots import weights_digest
from jobs.pipelines import catalog
from jobs.ranking import reading
from jobs.ranking import run as runs
from jobs.steps.training_run import first_window
from models.protocol import FirstWindow
from models.training.determinism import torch_device


def run(ctx: RunContext) -> Outcome:
    """Train, unless the same inputs have already made the same ranker, or it is forced.

    Raises:
        InputError: the first day has no events.
        GuardFailed: its loss is not a number; nothing of it remains.
    """
    parent, store = reading.yesterdays(ctx), reading.store(ctx)
    events = ctx.artifact(Events()).rows
    if not events and parent:
        return _outcome(ctx, parent)
    if not events:
        raise InputError(
            f"{ctx.ds} has no events, and no ranker before it",
            where=f"train_ranker {ctx.upstream} {ctx.ds}",
            expected="a first day with events",
            found="none",
        )
    days = (ctx.ds,) if parent else reading.first_days(ctx)
    ranker_id = f"{ctx.ds}-{_digest(ctx, parent, days)}"
    manifest = None if ctx.force else store.manifest(ranker_id)
    if manifest is None:
        manifest = _train(ctx, ranker_id, parent, days)
    return _outcome(ctx, manifest)


def _train(
    ctx: RunContext, ranker_id: str, parent: SnapshotManifest | None, days: tuple[str, ...]
) -> SnapshotManifest:
    store = reading.store(ctx)
    store.discard(ranker_id)
    window = None if parent else _window(ctx, days)
    files, metrics = runs.train(ctx, days, parent, window)
    broken = {k: v for k, v in metrics.items() if isinstance(v, float) and not math.isfinite(v)}
    if broken:
        raise GuardFailed(
            f"ranker {ranker_id} is refused: it is broken, whatever the day",
            where=f"train_ranker {ctx.ds}",
            expected="finite losses",
            found=" ".join(f"{k} {v}" for k, v in broken.items()),
            hint=f"look at the day first: derm validate --ds {ctx.ds} --force",
        )
    manifest = SnapshotManifest(
        snapshot_id=ranker_id,
        space_id=parent.space_id if parent else f"{ctx.own_ranker.name}-{ranker_id}",
        parent_id=parent.snapshot_id if parent else None,
        upstream=ctx.own_ranker.name,
        ds=ctx.ds,
        seen_days=(*(parent.seen_days if parent else ()), *days),
        embedding_dim=sum(pool.dim for pool in reading.pools(ctx)),
        recipe=reading.ranker_digest(ctx),
        metrics=metrics,
        files={},
    )
    store.write_draft(manifest, files)
    draft = store.draft_manifest(ranker_id)
    store.promote(ranker_id)
    return draft or manifest


def _window(ctx: RunContext, days: tuple[str, ...]) -> FirstWindow:
    """What the days say to an upstream that learns the same labels."""
    learns = ctx.own_ranker.learns
    taught = (u.name for u in ctx.pipeline.upstreams if learns in (u.learns_as, u.name))
    return first_window(dataclasses.replace(ctx, upstream=next(taught)), days, learns)


def _digest(ctx: RunContext, parent: SnapshotManifest | None, days: tuple[str, ...]) -> str:
    """What decides the weights: the day's join, the window, the parent, the recipe, the code."""
    before = [ctx.at(ds).artifact(Events()).digest for ds in days[:-1]]
    if parent is None and (taught_by := reading.teacher(ctx)):
        before += taught_by.description.files.values()
    return content_digest(
        reading.ranker_digest(ctx),
        str(ctx.home.seed),
        ctx.code_digest(catalog.step("train_ranker")),
        weights_digest(parent) if parent else "",
        ctx.artifact(Assembled(ctx.own_ranker.name)).digest,
        *before,
    )


def _outcome(ctx: RunContext, manifest: SnapshotManifest) -> Outcome:
    folder = reading.store(ctx).folder(manifest.snapshot_id)
    artifact = Artifact(
        name=RankerWeights(ctx.own_ranker.name),
        ds=ctx.ds,
        digest=weights_digest(manifest),
        rows=int(manifest.metrics["rows"] or 0) if manifest.ds == ctx.ds else 0,
        size=bytes_in(folder),
        uri=folder.relative_to(ctx.root).as_posix(),
    )
    return Outcome(
        outputs=(artifact,),
        metrics={"ranker_id": manifest.snapshot_id, **manifest.metrics},
        device=torch_device(ctx.settings.device).type,
    )
