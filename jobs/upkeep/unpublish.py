"""Take users or Pins out of what is published: the online store, the Pin indexes, the releases."""

import shutil
from collections.abc import Mapping

import pyarrow as pa

from feature_store.contracts.base import Entity
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import pool_table
from feature_store.online.codec import users_prefix
from feature_store.online.releases import Releases
from feature_store.online.slots import space_of
from feature_store.online.store import open_store
from jobs.engine.context import RunContext
from jobs.engine.runner import run_step
from jobs.pipelines import catalog
from jobs.services.redis import ensure_redis, persist

# What readers see is made again by these, and then it is compared with the lake.
_PUBLISHING = ("index", "publish", "release", "audit")


def unpublish(
    ctx: RunContext, entity: Entity, gone: pa.Array, pools: Mapping[str, Artifact]
) -> dict[str, int]:
    """Remove users from every slot, or build the index of the current day without the Pins.

    Args:
        pools: by the digest a pool had, the pool as it is now.

    Returns:
        What was removed, by slot or index; empty when nothing was ever published.

    Raises:
        DermError: the online store still holds a user.
    """
    if not any(ctx.lake.exists(pool_table(u, entity).name) for u in ctx.pipeline.names):
        return {}
    releases = Releases(ctx.root, open_store(ensure_redis(ctx.settings), ctx.recipe.publishing))
    if entity == "pin":
        return _drop_from_indexes(ctx, releases, len(gone))
    online = _drop_from_slots(ctx, releases, gone)
    releases.relabel(pools)
    releases.store.purge()
    persist(ctx.settings)
    return online


def _drop_from_slots(ctx: RunContext, releases: Releases, gone: pa.Array) -> dict[str, int]:
    """Remove users from both slots of every space, whether a release names the slot or not."""
    store, ids, online = releases.store, gone.to_pylist(), {}
    for prefix in _slots(ctx, releases):
        present = sum(value is not None for value in store.read(prefix, ids))
        if not present:
            continue
        with store.writer(prefix) as writer:
            writer.remove(gone)
        store.seal(prefix)
        if left := sum(value is not None for value in store.read(prefix, ids)):
            raise DermError(
                "users that were to be forgotten are still in the online store",
                where=f"{store.location} {prefix}*",
                expected="none of them",
                found=f"{left} of {len(ids)}",
                hint="another program writes below this prefix: stop it, and forget again",
            )
        online[prefix] = present
    return online


def _slots(ctx: RunContext, releases: Releases) -> list[str]:
    """Both slots of each space that a release names or a pool is of.

    A publish that has not been released yet writes into a slot that no release names.
    """
    spaces = {(e.upstream, e.space_id) for r in releases.known() for e in r.upstreams}
    for upstream in ctx.pipeline.published:
        name = pool_table(upstream, "user").name
        for ds in ctx.lake.days(name):
            if space := space_of(ctx.lake.files(name, ds)):
                spaces.add((upstream, space))
    return sorted(users_prefix(u, space, slot) for u, space in spaces for slot in ("a", "b"))


def _drop_from_indexes(ctx: RunContext, releases: Releases, pins: int) -> dict[str, int]:
    """Publish the current day again, with an index without the Pins; delete every other index.

    Days after it that are under way build theirs again; a rollback to an older one is refused.
    """
    current, kept = releases.current(), set()
    if current is not None:
        for name in _PUBLISHING:
            step = catalog.step(name)
            for upstream in ctx.pipeline.upstreams_of(step):
                # Users stay where they are: written anew they would change slots, and an attempt
                # that was killed and finished would end in another release than one that was not.
                run_step(ctx.settings, step, current.ds, upstream, force=step.name != "publish")
        kept = {e.index_path for e in (releases.current() or current).upstreams}
    gone = {str(f.relative_to(ctx.root)) for f in ctx.root.glob("index/*/*")} - kept
    ctx.manifests.mark_dropped(lambda a: a.uri in gone)
    for uri in sorted(gone):
        shutil.rmtree(ctx.root / uri)
    for ds in ctx.manifests.days():
        if current is None or ds > current.ds:
            for upstream in ctx.pipeline.published:
                ctx.manifests.remove("index", ds, upstream)
    return {f"index of {current.ds}": pins} if current else {}
