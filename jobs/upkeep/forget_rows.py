"""Taking users or Pins out of models that have a row for each: those that learn edges or pairs.

Rows go by the hash of the id, which nobody who looks for the id itself would find. A snapshot is
written again without them, in the place of the one that was, and goes by the same id. Drafts, which
trainings that were killed have left, go.
"""

from collections.abc import Iterator

import pyarrow as pa

from feature_store.contracts.artifacts import Snapshot
from feature_store.contracts.base import Entity
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact, SnapshotManifest
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.buckets import stable_hash
from jobs.engine.context import RunContext
from jobs.engine.presence import bytes_in
from jobs.engine.snapshots import MODEL, OPTIMIZER, SnapshotStore, weights_digest
from models.registry import family


def recorded(ctx: RunContext) -> Iterator[Artifact]:
    """The snapshots with such rows, as the steps of every day recorded them."""
    for upstream in _with_rows(ctx):
        for ds in ctx.manifests.days():
            if trained := ctx.manifests.get("train", ds, upstream.name):
                yield trained.output(Snapshot(upstream.name))


def as_it_is(ctx: RunContext, was: Artifact) -> Artifact:
    """A snapshot of `recorded` as it is now; as it was where retention has removed it."""
    folder = ctx.root / was.uri
    manifest = _store(ctx, str(was.reference.upstream)).manifest(folder.name)
    if manifest is None:
        return was
    return was.model_copy(update={"digest": weights_digest(manifest), "size": bytes_in(folder)})


def forget_rows(ctx: RunContext, entity: Entity, gone: pa.Array) -> dict[str, dict[str, int]]:
    """Write every snapshot again that has rows of the ids; rows by snapshot and its day.

    Raises:
        DermError: a row was found again after all were removed.
    """
    key_M = stable_hash(gone).view("i8")
    found: dict[str, dict[str, int]] = {}
    for upstream in _with_rows(ctx):
        store, known = _store(ctx, upstream.name), family(upstream.family)
        model = ctx.recipe.of(upstream).model
        _finish(store)
        for manifest in _snapshots(store):
            left, removed = known.without(model, store.read(manifest, MODEL), entity, key_M)
            if not removed:
                continue
            files = {MODEL: left, OPTIMIZER: store.read(manifest, OPTIMIZER)}
            store.write_draft(manifest, files)
            store.promote(manifest.snapshot_id)
            of_upstream = found.setdefault(Snapshot(upstream.name), {})
            of_upstream[manifest.ds] = of_upstream.get(manifest.ds, 0) + removed
        for manifest in _snapshots(store):
            if known.without(model, store.read(manifest, MODEL), entity, key_M)[1]:
                raise DermError(
                    "a model still has a row of somebody who was to be forgotten",
                    where=str(store.folder(manifest.snapshot_id)),
                    expected="none",
                    found=f"rows of some of {len(gone)} {entity} ids",
                    hint="a step was running: pause the daily run and forget again",
                )
    return found


def _with_rows(ctx: RunContext) -> tuple[UpstreamDeclaration, ...]:
    return tuple(u for u in ctx.pipeline.upstreams if u.reads in ("edges", "pairs"))


def _store(ctx: RunContext, upstream: str) -> SnapshotStore:
    return SnapshotStore(ctx.root, upstream)


def _finish(store: SnapshotStore) -> None:
    """Rename what a forget before this one had written; discard all other drafts."""
    for draft in sorted(store.root.glob(".*.draft")):
        snapshot_id = draft.name[1:].removesuffix(".draft")
        if store.draft_manifest(snapshot_id) and store.manifest(snapshot_id) is None:
            store.promote(snapshot_id)
        else:
            store.discard(snapshot_id)


def _snapshots(store: SnapshotStore) -> Iterator[SnapshotManifest]:
    for folder in sorted(store.root.glob("[!.]*")):
        if manifest := store.manifest(folder.name):
            yield manifest
