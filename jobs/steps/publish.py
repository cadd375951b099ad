"""Publish: bring the idle Redis slot of one upstream to the day. Readers do not see it yet.

Reads the user pool of the day (and the ids of the day the slot holds), writes the slot that the
current release does not use. `derm release` makes it visible. A publish that was killed goes on
with the buckets that are left; `docs/publishing.md` explains the states of a slot.
"""

import time
from typing import Literal

from feature_store.contracts.artifacts import Pool, Reference, Users
from feature_store.contracts.base import Upstream, days_between
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Artifact, PublishedUpstream
from feature_store.contracts.tables import pool_table
from feature_store.online.codec import ValueFormat, slot_key, users_prefix
from feature_store.online.releases import Releases, entry_of
from feature_store.online.slots import BucketFiles, SlotWrite, files_by_bucket, space_of, spot_check
from feature_store.online.store import (
    OnlineStore,
    SlotState,
    open_store,
    put_slot_state,
    slot_state,
)
from jobs.engine import locks
from jobs.engine.bucket_writers import write_buckets
from jobs.engine.context import Outcome, RunContext
from jobs.services.redis import ensure_redis


def run(ctx: RunContext) -> Outcome:
    """Publish the users of one upstream and day.

    Raises:
        GuardFailed: the pool is empty.
        StoreError: the store is unreachable, full or read-only; running again continues.
    """
    upstream = ctx.own_upstream
    pool = ctx.artifact(_pool_name(upstream))
    url = ensure_redis(ctx.settings)
    store = open_store(url, ctx.recipe.publishing)
    with locks.slots(ctx.root, upstream):
        started = time.perf_counter()
        target = _target_state(ctx, upstream, pool)
        prefix = _idle_prefix(ctx, store, upstream, target.space_id)
        _drop_unused(ctx, store, upstream, prefix)
        state = _resume_or_begin(ctx, store, upstream, prefix, target)
        plan = slot_write(ctx, upstream, prefix, state, state.base_ds)
        buckets = _bucket_files(ctx, upstream, state)
        state = write_buckets(
            url, ctx.recipe.publishing, plan, buckets, state, ctx.settings.threads, ctx.log
        )
        store.seal(prefix)
        spot_check(store, plan, buckets)
        put_slot_state(store, prefix, state.model_copy(update={"state": "complete", "done": {}}))
    return _outcome(pool, state, prefix, time.perf_counter() - started)


def lineage_holds(ctx: RunContext, upstream: Upstream, base_ds: str, base_digest: str) -> bool:
    """Whether today's pool descends, day by day, from the pool a slot recorded.

    A backfill that recomputed any day in between breaks the chain of digests, and then "changed
    since" says nothing about what the slot holds.
    """
    name, expected = _pool_name(upstream), base_digest
    for ds in days_between(base_ds, ctx.ds):
        manifest = ctx.manifests.get("merge", ds, upstream)
        if manifest is None:
            return False
        if ds == base_ds:
            parent = manifest.output(name).digest
        else:
            parent = next((a.digest for a in manifest.inputs if a.name == name), "")
        if parent != expected:
            return False
        expected = manifest.output(name).digest
    return base_ds <= ctx.ds


def slot_write(
    ctx: RunContext,
    upstream: Upstream,
    prefix: str,
    holds: SlotState | PublishedUpstream,
    base_ds: str | None = None,
) -> SlotWrite:
    """How rows of the day's pool become values of a slot that `holds` describes."""
    return SlotWrite(
        prefix=prefix,
        ds=ctx.ds,
        base_ds=base_ds,
        space_id=holds.space_id,
        format=ValueFormat(dtype=holds.dtype, dim=holds.dim),
        pool_dtype=ctx.lake.layout(pool_table(upstream, "user").name).packed,
        expire_days=ctx.recipe.publishing.expire_days,
        now=int(time.time()),
    )


def _pool_name(upstream: Upstream) -> Reference:
    return Pool(upstream, "user")


def _target_state(ctx: RunContext, upstream: Upstream, pool: Artifact) -> SlotState:
    """The state the slot is to have, before what it holds now is known."""
    table = pool_table(upstream, "user").name
    space = space_of(ctx.lake.files(table, ctx.ds)) if pool.rows else None
    if space is None:
        raise GuardFailed(
            f"the {upstream} user pool of {ctx.ds} is empty",
            where=ctx.lake.path(table),
            expected="at least one user",
            found="0 rows",
            hint="derm status shows which step lost them",
        )
    layout = ctx.lake.layout(table)
    return SlotState(
        state="writing",
        ds=ctx.ds,
        pool_digest=pool.digest,
        space_id=space,
        dtype=ctx.recipe.publishing.dtype,
        dim=layout.dim,
        buckets=layout.buckets,
        users=pool.rows,
        expire_days=ctx.recipe.publishing.expire_days,
    )


def _idle_prefix(ctx: RunContext, store: OnlineStore, upstream: Upstream, space_id: str) -> str:
    """The slot of this space that readers do not use."""
    release = Releases(ctx.root, store).current()
    entry = entry_of(release, upstream) if release else None
    in_use = entry.users_prefix if entry else None
    slot: Literal["a", "b"] = "b" if in_use == users_prefix(upstream, space_id, "a") else "a"
    return users_prefix(upstream, space_id, slot)


def _resume_or_begin(
    ctx: RunContext, store: OnlineStore, upstream: Upstream, prefix: str, target: SlotState
) -> SlotState:
    """Continue a publish of the same pool, build on what the slot holds, or start it afresh.

    Forced, it starts afresh: the slot is said to hold other than it should.
    """
    held = None if ctx.force else slot_state(store, prefix)
    if held and held.state == "writing" and _without_progress(held) == target:
        state = held
    elif held and held.state == "complete" and _can_build_on(ctx, upstream, held, target):
        state = target.model_copy(update={"base_ds": held.ds, "base_digest": held.pool_digest})
    else:
        state = target
    put_slot_state(store, prefix, state)
    if state.base_ds is None and not state.done:
        store.wipe(prefix)
    ctx.log.info(
        "publish %s: %s, %s of %d buckets are done",
        prefix,
        f"changes since {state.base_ds}" if state.base_ds else "every user",
        len(state.done),
        state.buckets,
    )
    return state


def _without_progress(state: SlotState) -> SlotState:
    return state.model_copy(update={"base_ds": None, "base_digest": None, "done": {}})


def _can_build_on(ctx: RunContext, upstream: Upstream, held: SlotState, target: SlotState) -> bool:
    layout = ("space_id", "dtype", "dim", "buckets", "expire_days")
    return (
        all(getattr(held, f) == getattr(target, f) for f in layout)
        and lineage_holds(ctx, upstream, held.ds, held.pool_digest)
        # The ids pruned since are those of the slot's day that today's pool lacks.
        and held.ds in ctx.lake.days(pool_table(upstream, "user").name)
    )


def _drop_unused(ctx: RunContext, store: OnlineStore, upstream: Upstream, target: str) -> None:
    """Free the slots of spaces that neither the current nor the previous release uses."""
    releases = Releases(ctx.root, store)
    current = releases.current()
    kept = {target}
    for release_id in (current.release_id, current.previous) if current else ():
        entry = entry_of(releases.get(release_id), upstream) if release_id else None
        kept |= {entry.users_prefix} if entry else set()
    for release in releases.known():
        entry = entry_of(release, upstream)
        if entry and entry.users_prefix not in kept and slot_state(store, entry.users_prefix):
            ctx.log.info("publish %s: freeing the unused %s", target, entry.users_prefix)
            store.wipe(entry.users_prefix)
            store.delete(slot_key(entry.users_prefix))


def _bucket_files(ctx: RunContext, upstream: Upstream, state: SlotState) -> list[BucketFiles]:
    table = pool_table(upstream, "user").name
    target = files_by_bucket(ctx.lake.files(table, ctx.ds))
    base = files_by_bucket(ctx.lake.files(table, state.base_ds)) if state.base_ds else {}
    return [
        BucketFiles(bucket=b, target=target.get(b, ()), base=base.get(b, ()))
        for b in sorted(target.keys() | base.keys())
    ]


def _outcome(pool: Artifact, state: SlotState, prefix: str, seconds: float) -> Outcome:
    done = state.done.values()
    written, removed = sum(d.written for d in done), sum(d.removed for d in done)
    upstream = pool.reference.upstream
    artifact = Artifact(
        name=Users(upstream),
        ds=pool.ds,
        digest=content_digest(pool.digest, state.dtype, str(state.expire_days), prefix),
        rows=state.users,
        size=sum(d.size for d in done),
        uri=prefix,
    )
    return Outcome(
        outputs=(artifact,),
        metrics={
            "users": state.users,
            "written": written,
            "removed": removed,
            "bytes": artifact.size,
            "rows_per_s": round(written / max(seconds, 1e-6)),
            "full": int(state.base_ds is None),
        },
        timings={"write": round(seconds, 3)},
    )
