"""Release: name the day's users and Pins of both upstreams in one manifest; flip the pointer.

A store that restarted since `publish`, with what it had saved before, is brought to the day again.
"""

import dataclasses

from feature_store.contracts.artifacts import Index, Pool, Users
from feature_store.contracts.base import Upstream
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import SpaceMismatch, StoreError
from feature_store.contracts.manifests import Artifact, PublishedUpstream, Release
from feature_store.index.index import read_manifest
from feature_store.online.releases import Releases
from feature_store.online.store import open_store, slot_state
from jobs.engine import locks
from jobs.engine.context import Outcome, RunContext
from jobs.rendering.exposition import write_metrics
from jobs.services import store_record
from jobs.services.redis import ensure_redis, persist
from jobs.steps import publish


def run(ctx: RunContext) -> Outcome:
    """Make the day current, users and Pins at once; the release before it stays for a rollback.

    Raises:
        GuardFailed: a slot or an index is not what the day's manifests say.
        SpaceMismatch: users and Pins of an upstream live in different spaces.
        StoreError: the pointer could not be moved, or a publish is under way.
    """
    releases = Releases(ctx.root, open_store(ensure_redis(ctx.settings), ctx.recipe.publishing))
    entries = [_entry(ctx, releases, u) for u in ctx.pipeline.published]
    # No publish may begin to write a slot between the check of it and the flip to it.
    with locks.slots(ctx.root, *ctx.pipeline.published):
        release = releases.publish(ctx.ds, entries)
        store_record.write(ctx.settings)
    # After the flip: the embedded server restarts with its last save, which must hold this day.
    persist(ctx.settings)
    write_metrics(ctx.root)
    return _outcome(ctx, release)


def _entry(ctx: RunContext, releases: Releases, upstream: Upstream) -> PublishedUpstream:
    """What the release says about one upstream, from the slot and the index themselves."""
    users, index = _users(ctx, releases, upstream), ctx.artifact(Index(upstream))
    state = slot_state(releases.store, users.uri)
    if state is None:
        raise StoreError(
            f"the online store has lost the users of {upstream}",
            where=f"{releases.store.location} {users.uri}*",
            expected=f"a slot that holds {ctx.ds}",
            found="no slot state",
            hint=f"derm publish --ds {ctx.ds} --upstream {upstream} --force",
        )
    pins = read_manifest(ctx.root / index.uri)
    if pins.pins and pins.space_id != state.space_id:
        raise SpaceMismatch(
            f"users and Pins of {upstream} live in different spaces",
            where=f"{users.uri} and {index.uri}",
            expected=state.space_id,
            found=pins.space_id,
            hint=f"infer both with one snapshot: derm run --from {ctx.ds} --to {ctx.ds}",
        )
    return PublishedUpstream(
        upstream=upstream,
        space_id=state.space_id,
        dim=state.dim,
        dtype=state.dtype,
        slot="a" if users.uri.endswith(":a:") else "b",
        users_prefix=users.uri,
        users=state.users,
        pool_digest=ctx.artifact(Pool(upstream, "user")).digest,
        index_path=index.uri,
        index_digest=index.digest,
        pins=pins.pins,
    )


def _users(ctx: RunContext, releases: Releases, upstream: Upstream) -> Artifact:
    """The day's users in the store, published once more if it has lost them.

    A slot that holds a later day is left alone: then the release is refused.
    """
    users = ctx.artifact(Users(upstream))
    pool = ctx.artifact(Pool(upstream, "user"))
    held = slot_state(releases.store, users.uri)
    if held and (held.ds > ctx.ds or (held.state, held.pool_digest) == ("complete", pool.digest)):
        return users
    found = f"{held.state} {held.ds}" if held else "nothing"
    ctx.log.warning("the online store has lost %s: %s holds %s", ctx.ds, users.uri, found)
    return publish.run(dataclasses.replace(ctx, upstream=upstream)).outputs[0]


def _outcome(ctx: RunContext, release: Release) -> Outcome:
    artifact = Artifact(
        name="release",
        ds=ctx.ds,
        digest=content_digest(release.release_id),
        rows=sum(e.users + e.pins for e in release.upstreams),
        uri=f"releases/{release.release_id}.json",
    )
    return Outcome(
        outputs=(artifact,),
        metrics={
            "release": release.release_id,
            "previous": release.previous,
            **{f"users_{e.upstream}": e.users for e in release.upstreams},
            **{f"pins_{e.upstream}": e.pins for e in release.upstreams},
        },
    )
