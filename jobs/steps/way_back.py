"""The slots that a rollback would show: nobody reads them, so nobody misses what they lose."""

from feature_store.contracts.artifacts import Pool
from feature_store.contracts.errors import DermError, GuardFailed, ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.online.releases import Releases
from feature_store.online.store import OnlineStore, SlotState, slot_state
from jobs.engine.context import RunContext
from jobs.steps.audit_users import compare

_BUCKETS, _ROWS = 1, 64


def lost(ctx: RunContext, store: OnlineStore, release: Release, *, turn: int) -> GuardFailed | None:
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
    seen = compare(view, store, entry, buckets=_BUCKETS, rows=_ROWS, turn=turn)
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
