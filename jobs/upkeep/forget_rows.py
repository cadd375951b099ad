"""What upstreams of ids have learned of users or Pins, erased from every snapshot.

A table of ids has a row for a person, found by the hash of the id. The row, its counter and what
the optimizer keeps for it become zeros in every snapshot there is, whether or not a day still needs
it; drafts, which are checkpoints of a training that was killed, go. A snapshot is written beside
and renamed, so that it is whole whenever somebody dies, and erasing again changes nothing: that is
also the proof.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.artifacts import Snapshot
from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact, SnapshotManifest
from feature_store.lake.buckets import stable_hash
from jobs.engine.context import RunContext
from jobs.engine.snapshots import MODEL, OPTIMIZER, SnapshotStore, weights_digest
from models.registry import family

Keys = npt.NDArray[np.int64]


def recorded(ctx: RunContext) -> tuple[Artifact, ...]:
    """The snapshots of upstreams of ids, as manifests name them; several days may name one."""
    wanted = {Snapshot(name) for name in _upstreams(ctx)}
    found = (
        artifact
        for ds in ctx.manifests.days()
        for manifest in ctx.manifests.of_day(ds)
        for artifact in manifest.outputs
        if artifact.name in wanted
    )
    return tuple(dict.fromkeys(found))


def erase(ctx: RunContext, entity: Entity, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Erase ids from every snapshot; how many rows of tables are zeros now, by upstream and day.

    Raises:
        ManifestCorrupt: a snapshot is damaged.
        DermError: something of an id was found again afterwards.
    """
    keys = stable_hash(pa.array(ids, pa.string())).view(np.int64)
    found: dict[str, dict[str, int]] = {}
    for upstream in _upstreams(ctx):
        store = SnapshotStore(ctx.root, upstream)
        _finish(store)
        for manifest in _snapshots(store):
            if rows := _erase(ctx, store, manifest, entity, keys):
                days = found.setdefault(Snapshot(upstream), {})
                days[manifest.ds] = days.get(manifest.ds, 0) + rows
        _prove(ctx, store, entity, keys)
    return found


def as_it_is(ctx: RunContext, was: Artifact) -> Artifact:
    """A recorded snapshot with the digest that it has now; unchanged where it is gone."""
    upstream = was.name.removeprefix(Snapshot(""))
    manifest = SnapshotStore(ctx.root, upstream).manifest(was.uri.rpartition("/")[2])
    return was.model_copy(update={"digest": weights_digest(manifest)}) if manifest else was


def is_snapshot(artifact: Artifact) -> bool:
    """Whether an artifact is one of these, and no table."""
    return artifact.name.startswith(Snapshot(""))


def _upstreams(ctx: RunContext) -> Iterable[Upstream]:
    return [u.name for u in ctx.pipeline.upstreams if u.reads == "pairs"]


def _finish(store: SnapshotStore) -> None:
    """Rename what an erasure before this one had written; discard all other drafts."""
    for draft in sorted(store.root.glob(".*.draft")):
        snapshot_id = draft.name[1:].removesuffix(".draft")
        if store.draft_manifest(snapshot_id) and store.manifest(snapshot_id) is None:
            store.promote(snapshot_id)
        else:
            store.discard(snapshot_id)


def _snapshots(store: SnapshotStore) -> list[SnapshotManifest]:
    names = sorted(path.name for path in store.root.glob("[!.]*") if path.is_dir())
    return [manifest for name in names if (manifest := store.manifest(name))]


def _erase(
    ctx: RunContext, store: SnapshotStore, manifest: SnapshotManifest, entity: Entity, keys: Keys
) -> int:
    """Write a snapshot without what it learned of some ids; how many rows that were."""
    files = {name: store.read(manifest, name) for name in (MODEL, OPTIMIZER)}
    declared = ctx.pipeline.upstream(store.upstream)
    model = ctx.recipe.of(declared).model
    rows = sum(
        family(declared.family).erase(model, tensors, entity, keys) for tensors in files.values()
    )
    if rows:
        store.write_draft(manifest, files)
        store.promote(manifest.snapshot_id)
    return int(rows)


def _prove(ctx: RunContext, store: SnapshotStore, entity: Entity, keys: Keys) -> None:
    """Read every snapshot again: there must be nothing left to erase.

    Raises:
        DermError: there is.
    """
    for manifest in _snapshots(store):
        if rows := _erase(ctx, store, manifest, entity, keys):
            raise DermError(
                "a snapshot still holds what was learned of an id",
                where=str(store.folder(manifest.snapshot_id)),
                expected="zeros",
                found=f"{rows} rows that are none",
            )
