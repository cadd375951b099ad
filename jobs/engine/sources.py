"""What a user's files hold of a day, as the input of its ingest: changed files make a day stale.

Files are read again only when their size or time of change did: what was found then is kept in
`sources/<ds>.json` below the home.
"""

import contextlib
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.artifacts import SOURCE
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Artifact
from jobs.datasets.base import Adapter
from jobs.datasets.registry import open_adapter
from jobs.engine.context import RunContext


class _Seen(Contract):
    """The digest of a day's content, and the state of the files it was read from."""

    files: str
    digest: str


def of_day(ctx: RunContext, recorded: Artifact | None) -> Artifact | None:
    """The source of the context's day; what cannot be looked at any more is taken as unchanged.

    Args:
        recorded: the source that the day was made from, None when it was never made.
    """
    try:
        home = ctx.home
        adapter = open_adapter(home.dataset, home.source, ctx.root, ctx.recipe.world(home.dataset))
        files = adapter.files(ctx.ds)
    except InputError:
        return recorded
    if not files or not all(path.is_file() for path in files):
        return recorded
    return Artifact(
        name=SOURCE,
        ds=ctx.ds,
        digest=_digest(ctx, adapter, files),
        size=sum(path.stat().st_size for path in files),
        uri=str(files[0].parent),
    )


def _digest(ctx: RunContext, adapter: Adapter, files: tuple[Path, ...]) -> str:
    """The digest of what the files hold of the day, read again only where they have changed."""
    states = [(path, path.stat()) for path in files]
    state = content_digest(*(f"{p}:{s.st_size}:{s.st_mtime_ns}" for p, s in states))
    kept = ctx.paths.sources / f"{ctx.ds}.json"
    with contextlib.suppress(OSError, ValidationError):
        seen = _Seen.model_validate_json(kept.read_bytes())
        if seen.files == state:
            return seen.digest
    try:
        digest = adapter.fingerprint(ctx.ds)
    except InputError:
        return state  # it cannot be read: ingest says why
    with contextlib.suppress(OSError):  # a home that is only looked at
        write_atomic(kept, _Seen(files=state, digest=digest).model_dump_json() + "\n")
    return digest
