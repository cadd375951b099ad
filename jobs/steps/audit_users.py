"""What readers see of a release, against the release and the lake: how much of it is not there."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.online import probe
from feature_store.online.slots import files_by_bucket, ids_of, mismatches
from feature_store.online.store import OnlineStore
from jobs.engine.context import RunContext
from jobs.steps.publish import slot_write

_KEYS = 100_000


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
