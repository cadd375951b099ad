"""`derm restore`: bring an online store that has lost users back to what readers should see.

The home names the current release and the one before it, and the lake has their pools. The slots
of both are written again under the names that the releases give them, so the release is the same
one as before, and `derm rollback` still has where to go. Killed, the same command goes on with the
buckets that are left.
"""

import argparse
import json
from collections.abc import Iterator

from feature_store.contracts.base import Contract
from feature_store.contracts.errors import InputError, ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.contracts.tables import pool_table
from feature_store.online import probe
from feature_store.online.codec import CURRENT_KEY
from feature_store.online.releases import Releases
from feature_store.online.slots import BucketFiles, files_by_bucket, spot_check
from feature_store.online.store import (
    OnlineStore,
    SlotState,
    open_store,
    put_slot_state,
    slot_state,
)
from jobs.console import out
from jobs.engine import locks
from jobs.engine.bucket_writers import write_buckets
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.rendering.published import read_published
from jobs.services.redis import ensure_redis, persist
from jobs.settings import Settings
from jobs.steps import probing
from jobs.steps.audit_users import check_held, compare, has_pool, lost
from jobs.steps.publish import slot_write

_BUCKETS, _ROWS = 8, 256


class Restored(Contract):
    """What was written into one slot.

    Attributes:
        release_id: the release that names the slot.
        skipped: why nothing was written; empty when it was.
    """

    release_id: str
    upstream: str
    slot: str
    users: int
    skipped: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm restore`."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also a store that names a release this home does not know",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Restore the current release, then the one before it; compare, save, look again.

    Raises:
        MissingInput: nothing was ever published, or the pool of the current release is gone.
        InputError: the store holds a release of somebody else.
        GuardFailed: the store still lacks users afterwards; or a repair of the days is under way.
        StoreError: the store is unreachable, full or read-only; the same command continues.
    """
    ctx = open_context(settings, "")
    published = _should_be_seen(ctx)
    if published is None:
        raise MissingInput(
            "nothing was ever published from this home, so nothing can be restored",
            where=str(settings.paths.releases),
            hint="derm status says what to run next",
        )
    upstreams = (e.upstream for e in published.upstreams)
    with (
        locks.together(settings.home, published.ds),
        locks.slots(settings.home, *upstreams),
    ):
        url = ensure_redis(settings)
        releases = Releases(settings.home, open_store(url, ctx.recipe.publishing))
        releases.heal()
        release = _current(releases, published, overwrite=args.overwrite)
        done = []
        for restored in _restore(ctx, url, releases, release):
            done.append(restored)
            if not args.json:
                out(_line(restored))
        _check(ctx, releases.store, release)
        persist(settings)
    probing.record(ctx)
    if args.json:
        out(json.dumps([r.model_dump() for r in done]))
    else:
        out(f"readers see {release.release_id} ({release.ds}), as before")
    return 0


def _should_be_seen(ctx: RunContext) -> Release | None:
    """What readers should see by the home; by the store, where the home's record is damaged.

    Raises:
        ManifestCorrupt: neither says it.
    """
    try:
        published = read_published(ctx.root)
    except ManifestCorrupt:
        store = open_store(ensure_redis(ctx.settings), ctx.recipe.publishing)
        if current := Releases(ctx.root, store).current():
            return current
        raise
    return published.release if published else None


def _restore(ctx: RunContext, url: str, releases: Releases, release: Release) -> Iterator[Restored]:
    """The current release first, then the pointer, then what a rollback needs."""
    pointed = releases.store.get(CURRENT_KEY) == release.release_id.encode()
    for entry in release.upstreams:
        yield _fill(ctx, url, releases.store, release, entry, readers=pointed)
    releases.point_at(release)
    for known in releases.known():
        releases.record(known)
    if release.previous is None:
        return
    try:
        before = releases.get(release.previous)
    except (MissingInput, ManifestCorrupt):
        return
    for entry in before.upstreams:
        yield _fill_if_possible(ctx, url, releases.store, before, entry)


def _fill_if_possible(
    ctx: RunContext, url: str, store: OnlineStore, release: Release, entry: PublishedUpstream
) -> Restored:
    """Fill the slot a rollback needs, unless it rightly holds another day or the pool is gone."""
    held = slot_state(store, entry.users_prefix)
    skipped = ""
    if held and held.pool_digest == entry.pool_digest and held.state == "complete":
        skipped = "it is there"
    elif held and held.ds > release.ds:
        skipped = f"the slot was given to {held.ds} since"
    elif not has_pool(ctx, release, entry):
        skipped = f"the pool of {release.ds} is not what it was: no rollback"
    if skipped and (skipped != "it is there" or _whole(ctx, store, release, entry)):
        return _restored(release, entry, skipped)
    return _fill(ctx, url, store, release, entry, readers=False)


def _fill(
    ctx: RunContext,
    url: str,
    store: OnlineStore,
    release: Release,
    entry: PublishedUpstream,
    *,
    readers: bool,
) -> Restored:
    """Write every user of a release into its slot.

    Args:
        readers: somebody reads the slot: users that are there stay there while it is written.
    """
    if not has_pool(ctx, release, entry):
        raise MissingInput(
            f"the {entry.upstream} pool of {release.ds} is not the one that was released",
            where=ctx.lake.path(pool_table(entry.upstream, "user").name),
            expected=f"pool {entry.pool_digest}",
            found="another one, or none: the day was recomputed since",
            hint=f"derm publish --ds {release.ds} --force, "
            f"then derm release --ds {release.ds} --force",
        )
    view = ctx.at(release.ds)
    table = pool_table(entry.upstream, "user").name
    target = SlotState(
        state="writing",
        ds=release.ds,
        pool_digest=entry.pool_digest,
        space_id=entry.space_id,
        dtype=entry.dtype,
        dim=entry.dim,
        buckets=ctx.lake.layout(table).buckets,
        users=entry.users,
        expire_days=ctx.recipe.publishing.expire_days,
    )
    state = _begin(store, entry, target, keep=readers and not _strange(view, store, entry))
    plan = slot_write(view, entry.upstream, entry.users_prefix, state)
    files = files_by_bucket(ctx.lake.files(table, release.ds))
    buckets = [BucketFiles(bucket=b, target=files[b]) for b in sorted(files)]
    threads, config = ctx.settings.threads, ctx.recipe.publishing
    state = write_buckets(url, config, plan, buckets, state, threads, ctx.log)
    store.seal(entry.users_prefix)
    spot_check(store, plan, buckets)
    complete = state.model_copy(update={"state": "complete", "done": {}})
    put_slot_state(store, entry.users_prefix, complete)
    return _restored(release, entry)


def _begin(
    store: OnlineStore, entry: PublishedUpstream, target: SlotState, *, keep: bool
) -> SlotState:
    """Go on with what a killed restore has written, or begin."""
    held = slot_state(store, entry.users_prefix)
    if held and held.state == "writing" and held.model_copy(update={"done": {}}) == target:
        return held
    put_slot_state(store, entry.users_prefix, target)
    if not keep:
        store.wipe(entry.users_prefix)
    return target


def _strange(ctx: RunContext, store: OnlineStore, entry: PublishedUpstream) -> bool:
    """Whether the slot holds what does not belong there: then it is emptied before it is filled."""
    sample = compare(ctx, store, entry, buckets=_BUCKETS, rows=_ROWS, turn=0, with_extra=True)
    return bool(sample.different or sample.extra)


def _whole(ctx: RunContext, store: OnlineStore, release: Release, entry: PublishedUpstream) -> bool:
    if not has_pool(ctx, release, entry):
        return True
    view = ctx.at(release.ds)
    sample = compare(view, store, entry, buckets=_BUCKETS, rows=_ROWS, turn=0, with_extra=True)
    return not (sample.missing or sample.different or sample.extra)


def _check(ctx: RunContext, store: OnlineStore, release: Release) -> None:
    """Look with a reader's eyes at what was restored.

    Raises:
        GuardFailed: it is not all there.
    """
    check_held(store, release)
    for entry in release.upstreams:
        if not _whole(ctx, store, release, entry):
            raise lost(store, release, f"users of {entry.upstream}, after they were written")


def _current(releases: Releases, recorded: Release, *, overwrite: bool) -> Release:
    """The release that readers should see.

    The pointer moves before the file that follows it: killed in between, the store knows better.

    Raises:
        InputError: the pointer names a release that is not of this home.
    """
    pointer = (releases.store.get(CURRENT_KEY) or b"").decode(errors="replace")
    named = next((r for r in releases.known() if r.release_id == pointer), None)
    if named and named.previous == recorded.release_id and not _losses(releases, named):
        return named
    unknown = named is None and pointer not in ("", recorded.release_id)
    if unknown and not overwrite:
        raise InputError(
            "the online store holds a release that this home does not know",
            where=releases.store.location,
            expected=f"{recorded.release_id}, nothing, or an earlier release of this home",
            found=pointer,
            hint="is it another pipeline's store? If it is an old copy of this one: "
            "derm restore --overwrite",
        )
    return recorded


def _losses(releases: Releases, release: Release) -> tuple[str, ...]:
    return probe.look(releases.store, release).losses(release)


def _restored(release: Release, entry: PublishedUpstream, skipped: str = "") -> Restored:
    return Restored(
        release_id=release.release_id,
        upstream=str(entry.upstream),
        slot=entry.slot,
        users=0 if skipped else entry.users,
        skipped=skipped,
    )


def _line(restored: Restored) -> str:
    did = restored.skipped or f"{restored.users} users written"
    return f"{restored.release_id}  {restored.upstream} slot {restored.slot}: {did}"
