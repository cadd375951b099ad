"""Take users or Pins out of what is published: the online store, the Pin indexes, the releases."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.artifacts import Users
from feature_store.contracts.base import Entity
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import pool_table
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.engine.context import RunContext
from jobs.engine.runner import run_step
from jobs.engine.staleness import standings
from jobs.services.redis import ensure_redis, persist

# What readers see is made again by these, and then it is compared with the lake.


def published(ctx: RunContext, entity: Entity, ids: Sequence[str]) -> set[str]:
    """The ids that a slot of the online store, or any Pin index, knows."""
    if not _was_published(ctx, entity):
        return set()
    if entity == "pin":
        names = np.array([i.encode() for i in ids], np.bytes_)
        found = [names[np.isin(names, _pins_of(f))] for f in ctx.paths.indexes.glob("*/*/ids.npy")]
        return {n.decode() for part in found for n in part.tolist()}
    store = open_store(ensure_redis(ctx.settings))
    values = (zip(ids, store.read(prefix, ids), strict=True) for prefix in store.slots())
    return {i for slot in values for i, value in slot if value is not None}


def _pins_of(file: Path) -> npt.NDArray[np.bytes_]:
    try:
        pins: npt.NDArray[np.bytes_] = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return np.zeros(0, "S1")  # of an index that was never finished
    return pins


def unpublish(
    ctx: RunContext, entity: Entity, gone: pa.Array, pools: Mapping[str, Artifact]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Remove users from every slot, or build the index of the current day without the Pins.

    Args:
        pools: by the digest a pool had, the pool as it is now.

    Returns:
        What was removed, by slot or index; empty when nothing was ever published. And what the
        store would not let be done, a sentence each.

    Raises:
        DermError: the online store still holds a user.
    """
    if not _was_published(ctx, entity):
        return {}, ()
    releases = Releases(ctx.root, open_store(ensure_redis(ctx.settings), ctx.recipe.publishing))
    if entity == "pin":
        return _drop_from_indexes(ctx, releases, gone), ()
    online = _drop_from_slots(releases, gone)
    releases.relabel(pools)
    unproved = releases.store.purge()
    persist(ctx.settings)
    return online, unproved


def _was_published(ctx: RunContext, entity: Entity) -> bool:
    return any(ctx.lake.exists(pool_table(u, entity).name) for u in ctx.pipeline.names)


def _drop_from_slots(releases: Releases, gone: pa.Array) -> dict[str, int]:
    """Remove users from every slot, whether a release names it or not, and from its drafts."""
    store, ids, online = releases.store, gone.to_pylist(), {}
    for prefix in store.slots():
        present = sum(value is not None for value in store.read(prefix, ids))
        store.erase(prefix, gone)
        if left := sum(value is not None for value in store.read(prefix, ids)):
            raise DermError(
                "users that were to be forgotten are still in the online store",
                where=f"{store.location} {prefix}*",
                expected="none of them",
                found=f"{left} of {len(ids)}",
                hint="another program writes below this prefix: stop it, and forget again",
            )
        if present:
            online[prefix] = present
    return online


def _drop_from_indexes(ctx: RunContext, releases: Releases, gone: pa.Array) -> dict[str, int]:
    """Publish the current day again, with an index without the Pins; delete every other index.

    Days after it that are under way build theirs again; a rollback to an older one is refused.
    Where no index knows one of the Pins, none changes.
    """
    current, kept = releases.current(), set()
    # Also after an attempt that was killed between the index and its release.
    named = published(ctx, "pin", gone.to_pylist())
    stale = current is not None and _is_stale(ctx, current.ds)
    if not named and not stale:
        return {}
    if current is not None:
        for step in ctx.pipeline.steps_of("publishing"):
            for upstream in ctx.pipeline.upstreams_of(step):
                # Users stay where they are: written anew they would change slots, and an attempt
                # that was killed and finished would end in another release than one that was not.
                run_step(
                    ctx.settings, step, current.ds, upstream, force=Users() not in step.outputs
                )
        kept = {e.index_path for e in (releases.current() or current).upstreams}
    gone = {str(f.relative_to(ctx.root)) for f in ctx.paths.indexes.glob("*/*")} - kept
    ctx.manifests.mark_dropped(lambda a: a.uri in gone)
    for uri in sorted(gone):
        shutil.rmtree(ctx.root / uri)
    for ds in ctx.manifests.days():
        if current is None or ds > current.ds:
            for upstream in ctx.pipeline.published:
                ctx.manifests.remove("index", ds, upstream)
    return {f"index of {current.ds}": len(gone)} if current else {}


def _is_stale(ctx: RunContext, ds: str) -> bool:
    """Whether a step that publishes a day does not follow from its inputs, or never finished."""
    found = [s for s in standings(ctx, [ds]) if s.step.stage == "publishing"]
    return any(s.state != "done" for s in found)
