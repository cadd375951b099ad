"""Audit: compare samples of what is published with the lake: missing, extra, different per mille.

Users: the pointer and the states of the slots; sampled rows of the pool against the values in the
online store, byte for byte; sampled keys of the store against the ids of the pool. Pins: every id
of the index against the pool, the vectors of a sample, and the digest of every file.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.artifacts import ReleaseMark
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import GuardFailed, StoreError
from feature_store.contracts.manifests import Artifact, Metrics, PublishedUpstream
from feature_store.contracts.tables import pool_table
from feature_store.index.build import file_xxh3
from feature_store.index.graph import normalise
from feature_store.index.index import PinIndex
from feature_store.lake.schemas import unpack
from feature_store.lake.storage import open_parquet
from feature_store.online.slots import ids_of
from feature_store.online.store import OnlineStore, open_store
from jobs.engine.context import Outcome, RunContext
from jobs.rendering.published import read_published
from jobs.services.redis import ensure_redis
from jobs.steps import probing
from jobs.steps.audit_users import check_held, compare

_USERS_PER_BUCKET = 256
_BUCKETS = 8
_PINS = 1000
# float16 keeps 11 bits of each value, int8 storage about 8.
_TOLERANCE = {"float16": 1e-3, "float32": 1e-6, "int8": 2e-2}


def run(ctx: RunContext) -> Outcome:
    """Check the day's release, if it is the one that readers should see.

    Raises:
        GuardFailed: the store has lost what readers should see, or a sample of what is published
            differs from the lake.
    """
    try:
        outcome = _audit(ctx)
    except (GuardFailed, StoreError) as error:
        probing.record(ctx, found=error)
        raise
    probing.record(ctx)
    return outcome


def _audit(ctx: RunContext) -> Outcome:
    store = open_store(ensure_redis(ctx.settings), ctx.recipe.publishing)
    release = ctx.artifact(ReleaseMark())
    released = release.uri.removeprefix("releases/").removesuffix(".json")
    audited = (Artifact(name="audited", ds=ctx.ds, digest=release.digest),)
    # The home says what readers should see: a store that was lost says nothing, or another day.
    published = read_published(ctx.root)
    if published is None or published.release.release_id != released:
        ctx.log.info("audit: %s is not what readers should see; nothing to compare", released)
        return Outcome(outputs=audited, metrics={"audited": 0})
    held = check_held(store, published.release)
    metrics: Metrics = {"audited": 1, "keys": held.keys}
    for entry in published.release.upstreams:
        u = entry.upstream
        metrics |= {f"users_{u}_{k}": v for k, v in _users(ctx, store, entry).items()}
        metrics |= {f"pins_{u}_{k}": v for k, v in _pins(ctx, entry).items()}
    wrong = {k: v for k, v in metrics.items() if k.endswith("_per_mille") and v}
    if wrong:
        raise GuardFailed(
            f"what is published differs from the lake of {ctx.ds}",
            where=f"release {released}, {store.location}",
            expected="0 per mille missing, extra and different",
            found=" ".join(f"{k}={v}" for k, v in wrong.items()),
            hint=_repair(ctx.ds, list(wrong)),
        )
    return Outcome(outputs=audited, metrics=metrics)


def _repair(ds: str, wrong: Sequence[str]) -> str:
    """The commands that put right what differs: users in the store, or Pins in the index."""
    commands = ["derm restore"] if any(k.startswith("users_") for k in wrong) else []
    if any(k.startswith("pins_") for k in wrong):
        commands += [f"derm index --ds {ds} --force", f"derm release --ds {ds} --force"]
    return ", then ".join(commands)


def _users(ctx: RunContext, store: OnlineStore, entry: PublishedUpstream) -> Metrics:
    """Samples of the pool in the store, and samples of the store in the pool."""
    found = compare(
        ctx,
        store,
        entry,
        buckets=_BUCKETS,
        rows=_USERS_PER_BUCKET,
        turn=_turn(ctx.ds),
        with_extra=True,
    )
    return {
        "compared": found.compared,
        "missing_per_mille": _per_mille(found.missing, found.compared),
        "different_per_mille": _per_mille(found.different, found.compared),
        "extra_per_mille": _per_mille(found.extra, found.keys),
    }


def _pins(ctx: RunContext, entry: PublishedUpstream) -> Metrics:
    """Every id of the index, the vectors of a sample, and the digest of every file."""
    index = PinIndex(ctx.root / entry.index_path)
    table = pool_table(entry.upstream, "pin").name
    files = ctx.lake.files(table, ctx.ds)
    pool, indexed = (
        ids_of(files),
        pa.array([i.decode() for i in index.row_ids.tolist()], pa.string()),
    )
    missing = len(pool) - (pc.sum(pc.is_in(pool, indexed)).as_py() or 0)
    extra = len(indexed) - (pc.sum(pc.is_in(indexed, pool)).as_py() or 0)
    damaged = sum(
        file_xxh3(index.folder / name) != digest for name, digest in index.manifest.files.items()
    )
    compared, different = _different_pins(ctx, index, entry.upstream, files)
    return {
        "compared": compared,
        "missing_per_mille": _per_mille(missing, len(pool)),
        "extra_per_mille": _per_mille(extra, len(indexed)),
        "different_per_mille": _per_mille(different, compared),
        "damaged_files_per_mille": _per_mille(damaged, len(index.manifest.files)),
    }


def _different_pins(
    ctx: RunContext, index: PinIndex, upstream: Upstream, files: Sequence[str]
) -> tuple[int, int]:
    """How many Pins were compared, and how many differ by more than the storage rounds."""
    table = pool_table(upstream, "pin").name
    layout = ctx.lake.layout(table)
    compared = different = 0
    turn = _turn(ctx.ds)
    start = turn % max(len(files), 1)
    for file in (*files[start:], *files[:start]):
        with open_parquet(file) as parquet:
            rows = parquet.read(["entity_id", "embedding"])
        rows = rows.slice(turn % max(len(rows) - _PINS + 1, 1), _PINS - compared)
        at = index.rows_of(rows["entity_id"].to_pylist())
        expected = normalise(unpack(rows["embedding"], layout.dim, layout.packed))
        found = index.vectors(at[at >= 0])
        error = np.abs(found - expected[at >= 0]).max(axis=1, initial=0)
        different += int((error > _TOLERANCE[ctx.recipe.index.storage]).sum())
        compared += len(rows)
        if compared >= _PINS:
            break
    return compared, different


def _turn(ds: str) -> int:
    """A number that says where a day's sample begins: anywhere, so that in time all are sampled."""
    return zlib.crc32(ds.encode())


def _per_mille(part: int, whole: int) -> float:
    return round(1000 * part / max(whole, 1), 3)
