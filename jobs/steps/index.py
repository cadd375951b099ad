"""Index: build the Pin index of one upstream, check it against exact search, make it loadable.

Reads the Pin pool, the user pool (for sampled queries) and the Pin snapshot (metadata for
filters); writes `index/<upstream>/<digest>` below the home. `derm release` makes it current.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.artifacts import Index, Pool, Rows, in_lake
from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import MissingInput, SpaceMismatch
from feature_store.contracts.manifests import Acceptance, Artifact
from feature_store.contracts.tables import pool_table
from feature_store.index.build import Coded, Lineage, PinTable, build_checked, damages, write
from feature_store.index.graph import normalise
from feature_store.index.index import IndexManifest, PinIndex, read_manifest
from feature_store.lake.buckets import stable_hash
from feature_store.lake.schemas import unpack
from feature_store.lake.storage import open_parquet
from feature_store.online.slots import space_of
from jobs.engine import guards
from jobs.engine.context import Outcome, RunContext
from jobs.engine.presence import bytes_in
from jobs.pipelines import catalog

_READ_ROWS = 65_536


def run(ctx: RunContext) -> Outcome:
    """Build the index of one upstream and day, unless the same inputs already made it.

    One that is there and damaged is made again as it was, bit for bit: readers may be using it.
    Otherwise, when forced, it is built from nothing that is there, yesterday's graph included.

    Raises:
        GuardFailed: its recall stays below the bound.
        StoreError: it could not be written.
    """
    upstream = ctx.own_upstream
    lineage, digest = _lineage(ctx, upstream)
    parent = _parent(ctx, upstream, lineage)
    folder = _folder(ctx, upstream, digest, parent)
    accepted = guards.accepted(ctx.root, ctx.ds, upstream, "index.recall_at_10")
    if ctx.force and not (folder.exists() and damages(folder)):
        parent, folder = None, _folder(ctx, upstream, digest, None)
    elif folder.exists() and not damages(folder):
        return _outcome(ctx, folder, read_manifest(folder), parent, accepted, built_s=0.0)
    started = time.perf_counter()
    pins = _pin_table(ctx, upstream)
    queries = _queries(ctx, upstream, pins)
    read_s = time.perf_counter() - started
    yesterday = PinIndex(ctx.root / parent.uri) if parent else None
    config = ctx.recipe.index
    if accepted:
        least = min(config.recall_at_10, accepted.found)
        config = dataclasses.replace(config, recall_at_10=least)
    built = build_checked(pins, queries, config, lineage, yesterday, ctx.settings.threads)
    build_s = time.perf_counter() - started - read_s
    manifest = write(folder, built, pins, lineage)
    return _outcome(ctx, folder, manifest, parent, accepted, built_s=build_s)


def _folder(ctx: RunContext, upstream: Upstream, digest: str, parent: Artifact | None) -> Path:
    return ctx.paths.index(upstream, content_digest(digest, parent.digest if parent else ""))


def _queries(ctx: RunContext, upstream: Upstream, pins: PinTable) -> npt.NDArray[np.float32]:
    """Sampled users [Q, D] that the index is checked with; where they are too few, Pins help out.

    One user alone would tell a good index from a bad one by the luck of ten results.
    """
    users = _sample(ctx, upstream, "user", ctx.recipe.index.check_queries)
    missing = min(ctx.recipe.index.check_queries - len(users), len(pins.ids))
    spaced = np.linspace(0, max(len(pins.ids) - 1, 0), missing).astype(np.int64)
    return np.concatenate([users, pins.vectors[spaced]])


def _lineage(ctx: RunContext, upstream: Upstream) -> tuple[Lineage, str]:
    """Where today's index comes from, and the digest of what it depends on beside yesterday's."""
    name = pool_table(upstream, "pin").name
    pool = ctx.artifact(in_lake(name))
    config = content_digest(json.dumps(dataclasses.asdict(ctx.recipe.index), sort_keys=True))
    lineage = Lineage(
        ds=ctx.ds,
        space_id=(space_of(ctx.lake.files(name, ctx.ds)) if pool.rows else None) or "",
        pool_digest=pool.digest,
        config_digest=config,
    )
    users = ctx.artifact(Pool(upstream, "user"))
    features = ctx.artifact(Rows("pins"))
    code = ctx.code_digest(catalog.step("index"))
    return lineage, content_digest(pool.digest, config, users.digest, features.digest, code)


def _parent(ctx: RunContext, upstream: Upstream, lineage: Lineage) -> Artifact | None:
    """Yesterday's index, when its graph may serve another day."""
    try:
        artifact = ctx.previous(Index(upstream))
    except MissingInput:
        return None
    if artifact is None or not (ctx.root / artifact.uri / "index.json").exists():
        return None
    manifest = read_manifest(ctx.root / artifact.uri)
    age = np.datetime64(ctx.ds) - np.datetime64(manifest.built_ds)
    same = (manifest.space_id, manifest.config_digest) == (lineage.space_id, lineage.config_digest)
    if not same or age.astype(int) >= ctx.recipe.index.rebuild_days:
        return None
    return artifact


def _pin_table(ctx: RunContext, upstream: Upstream) -> PinTable:
    """Every Pin of the pool, sorted by id, normalised, with what it can be filtered by."""
    ids, vectors = _read_pool(ctx, upstream)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    metadata, numbers = _metadata(ctx, ids)
    return PinTable(ids=ids, vectors=normalise(vectors[order]), metadata=metadata, numbers=numbers)


def _read_pool(
    ctx: RunContext, upstream: Upstream
) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.float32]]:
    """Ids [N] and vectors [N, D] of the Pin pool, read into one allocation."""
    name = pool_table(upstream, "pin").name
    rows, layout = ctx.artifact(in_lake(name)).rows, ctx.lake.layout(name)
    vectors = np.empty((rows, layout.dim), np.float32)
    ids: list[npt.NDArray[np.bytes_]] = [np.zeros(0, "S1")]
    at, spaces = 0, set()
    for batch in _batches(ctx, upstream, "pin", ["entity_id", "embedding", "space_id"]):
        part = unpack(batch.column("embedding"), layout.dim, layout.packed)
        vectors[at : at + len(part)] = part
        ids.append(_utf8(batch.column("entity_id")))
        at += len(part)
        spaces.update(batch.column("space_id").unique().to_pylist())
    if len(spaces) > 1:
        raise SpaceMismatch(
            "the Pin pool holds vectors of several spaces",
            where=f"{name} {ctx.ds}",
            expected="one space in one index",
            found=" ".join(sorted(spaces)),
            hint="merge keeps spaces apart: run it again for this day",
        )
    return np.concatenate(ids), vectors


def _sample(
    ctx: RunContext, upstream: Upstream, entity: Entity, count: int
) -> npt.NDArray[np.float32]:
    """The vectors of the `count` entities with the smallest hashes: random, and always the same."""
    name = pool_table(upstream, entity).name
    layout = ctx.lake.layout(name)
    vectors, hashes = np.zeros((0, layout.dim), np.float32), np.zeros(0, np.uint64)
    for batch in _batches(ctx, upstream, entity, ["entity_id", "embedding"]):
        part = unpack(batch.column("embedding"), layout.dim, layout.packed)
        # The bucket is this hash modulo B: rotate it, or the sample would be of few buckets.
        mixed = stable_hash(batch.column("entity_id")) * np.uint64(0x9E3779B97F4A7C15)
        first = np.argsort(mixed, kind="stable")[:count]
        vectors = np.concatenate([vectors, part[first].astype(np.float32)])
        hashes = np.concatenate([hashes, mixed[first]])
        best = np.argsort(hashes, kind="stable")[:count]
        vectors, hashes = vectors[best], hashes[best]
    return np.ascontiguousarray(vectors)


def _batches(
    ctx: RunContext, upstream: Upstream, entity: Entity, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    for file in ctx.lake.files(pool_table(upstream, entity).name, ctx.ds):
        with open_parquet(file) as parquet:
            yield from parquet.iter_batches(batch_size=_READ_ROWS, columns=columns)


def _metadata(
    ctx: RunContext, ids: npt.NDArray[np.bytes_]
) -> tuple[dict[str, Coded], dict[str, npt.NDArray[np.float32]]]:
    """Categorical and numeric features of the day's snapshot; "" and NaN where there is none."""
    features = ctx.spec.features_of("pin")
    values = [f.name for f in features if f.kind == "categorical"]
    numbers = [f.name for f in features if f.kind == "numeric"]
    columns = ["pin_id", *values, *numbers]
    table = ctx.lake.read(ctx.spec.pins_table(), ctx.ds, columns=columns).combine_chunks()
    known = _utf8(table.column("pin_id").combine_chunks())
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], ids)
    # One row past the end stands for "not in the snapshot".
    rows = np.append(order, len(known))[at]
    rows[np.append(known, b"")[rows] != ids] = len(known)
    return (
        {name: _coded(table.column(name).combine_chunks(), rows) for name in values},
        {name: _numbers(table.column(name), rows) for name in numbers},
    )


def _numbers(column: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """A numeric column picked by rows; nulls and the end are NaN."""
    known = column.cast(pa.float32()).to_numpy().astype(np.float32)
    return np.append(known, np.float32(np.nan))[rows]


def _coded(column: pa.Array, rows: npt.NDArray[np.int64]) -> Coded:
    """A string column picked by rows, as distinct values and codes; nulls and the end are ""."""
    encoded = column.fill_null("").dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), ""]
    codes = np.append(encoded.indices.to_numpy(), len(values) - 1)
    return Coded(values=tuple(values), codes=codes[rows].astype(np.int32))


def _utf8(column: pa.Array) -> npt.NDArray[np.bytes_]:
    """Strings as fixed-width UTF-8 bytes [n], which can be memory-mapped and compared."""
    if len(column) == 0:
        return np.zeros(0, "S1")
    offsets = np.frombuffer(column.buffers()[1], np.int32)[
        column.offset : column.offset + len(column) + 1
    ]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    starts = np.repeat(offsets[:-1] - offsets[0], lengths)
    fixed = np.zeros((len(column), max(int(lengths.max()), 1)), np.uint8)
    fixed[np.repeat(np.arange(len(column)), lengths), np.arange(len(data)) - starts] = data
    return fixed.view(f"S{fixed.shape[1]}").ravel()


def _outcome(
    ctx: RunContext,
    folder: Path,
    manifest: IndexManifest,
    parent: Artifact | None,
    accepted: Acceptance | None,
    *,
    built_s: float,
) -> Outcome:
    below = manifest.recall_at_10 < ctx.recipe.index.recall_at_10
    warm = manifest.built_ds != manifest.ds
    artifact = Artifact(
        name=Index(ctx.upstream),
        ds=ctx.ds,
        digest=manifest.content_digest(),
        rows=manifest.pins,
        size=bytes_in(folder),
        uri=str(folder.relative_to(ctx.root)),
    )
    return Outcome(
        outputs=(artifact,),
        metrics={
            "pins": manifest.pins,
            "distinct": manifest.distinct,
            "exact": int(manifest.exact),
            "recall_at_10": round(manifest.recall_at_10, 4),
            "ef_search": manifest.ef_search,
            "build_s": round(built_s, 3),
            "warm": int(warm),
        },
        timings={"build": round(built_s, 3)},
        accepted=(accepted,) if accepted and below else (),
        also_read=(parent,) if parent and warm else (),
    )
