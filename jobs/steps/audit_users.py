"""What readers see of a release, against the release and the lake: how much of it is not there.

Also of the release before it, which a rollback would show: nobody reads that slot, so nobody misses
what it loses.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.artifacts import Pool
from feature_store.contracts.errors import DermError, GuardFailed, ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.online import probe
from feature_store.online.releases import Releases
from feature_store.online.slots import files_by_bucket, ids_of, mismatches
from feature_store.online.store import OnlineStore, SlotState, slot_state
from jobs.engine.context import RunContext
from jobs.steps.publish import slot_write

_KEYS = 100_000
_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledUsers:
    """Sampled rows of a pool against the store, and sampled keys of the store against the pool."""

    compared: int
    missing: int
    different: int
    keys: int = 0
    extra: int = 0


def check_held(store: OnlineStore, release: Release) -> probe.Held:
    """What the store holds of the release that readers should see.

    Raises:
        GuardFailed: it has lost the pointer, a slot, or keys.
        StoreError: it does not answer.
    """
    held = probe.look(store, release)
    if losses := held.losses(release):
        raise lost(store, release, "; ".join(losses))
    return held


def lost(store: OnlineStore, release: Release, found: str) -> GuardFailed:
    """The error that says what the store has lost, and which command brings it back."""
    return GuardFailed(
        f"the online store has lost users of {release.ds}, which readers should see",
        where=f"release {release.release_id}, {store.location}",
        expected="the pointer, both slots complete, and every sampled user as in the lake",
        found=found,
        hint="derm restore",
    )


def compare(
    ctx: RunContext,
    store: OnlineStore,
    entry: PublishedUpstream,
    *,
    buckets: int,
    rows: int,
    turn: int,
    with_extra: bool = False,
) -> SampledUsers:
    """Compare some rows of some buckets of the day's pool with a slot, byte for byte.

    Args:
        turn: which of them; successive numbers go through all.
        with_extra: also look for keys of the slot that the pool does not have.
    """
    table = pool_table(entry.upstream, "user").name
    files = files_by_bucket(ctx.lake.files(table, ctx.ds))
    plan = slot_write(ctx, entry.upstream, entry.users_prefix, entry)
    chosen = np.roll(sorted(files), -(turn % max(len(files), 1)))[:buckets].tolist()
    counts = [mismatches(store, plan, files[b], rows, turn) for b in chosen]
    compared, missing, different = (sum(c) for c in zip(*counts, strict=True))
    keys = extra = 0
    if with_extra:
        total = ctx.lake.layout(table).buckets
        ids = pa.array(store.sample(entry.users_prefix, _KEYS), pa.string())
        mine = ids.filter(pa.array(np.isin(bucket_of(ids, total), chosen)))
        known = ids_of([f for b in chosen for f in files[b]])
        keys = len(mine)
        extra = keys - (pc.sum(pc.is_in(mine, known)).as_py() or 0)
    return SampledUsers(
        compared=compared, missing=missing, different=different, keys=keys, extra=extra
    )


def lost_way_back(
    ctx: RunContext, store: OnlineStore, release: Release, *, turn: int
) -> GuardFailed | None:
    """The error that says what the release before this one has lost; None when it is there.

    A slot that rightly belongs to another day by now is no loss, nor is one that nothing could
    fill again, because its pool was recomputed or is no longer kept.

    Args:
        turn: which bucket is sampled; successive numbers go through all.

    Raises:
        StoreError: the store does not answer.
    """
    if release.previous is None:
        return None
    try:
        before = Releases(ctx.root, store).get(release.previous)
    except (MissingInput, ManifestCorrupt):
        return None
    for entry in before.upstreams:
        if has_pool(ctx, before, entry) and (found := _wrong(ctx, store, before, entry, turn)):
            return GuardFailed(
                f"the online store has lost users of {before.ds}, which a rollback would show",
                where=f"release {before.release_id}, {store.location} {entry.users_prefix}*",
                expected="the slot as it was released; readers see another one, which is whole",
                found=found,
                hint="derm restore",
            )
    return None


def has_pool(ctx: RunContext, release: Release, entry: PublishedUpstream) -> bool:
    """Whether the lake still has the pool that was released."""
    name = Pool(entry.upstream, "user")
    try:
        return ctx.at(release.ds).artifact(name).digest == entry.pool_digest
    except DermError:
        return False


def _wrong(
    ctx: RunContext, store: OnlineStore, release: Release, entry: PublishedUpstream, turn: int
) -> str:
    """What is wrong with a slot that should hold the release, or that nobody owns any more."""
    state = _state(store, entry.users_prefix)
    if state is None:
        return "the slot holds nothing that can be relied on"
    if (state.state, state.pool_digest) != ("complete", entry.pool_digest):
        return ""
    view = ctx.at(release.ds)
    seen = compare(view, store, entry, buckets=1, rows=_ROWS, turn=turn)
    taken_meanwhile = _state(store, entry.users_prefix) != state
    if taken_meanwhile or not (seen.missing or seen.different):
        return ""
    return f"of {seen.compared} sampled users {seen.missing} missing, {seen.different} different"


def _state(store: OnlineStore, prefix: str) -> SlotState | None:
    """What a slot says of itself; nothing when that cannot be read."""
    try:
        return slot_state(store, prefix)
    except ManifestCorrupt:
        return None
