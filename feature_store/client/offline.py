"""What a notebook or a training job imports: the pools of every day, as Arrow.

    from feature_store.client import offline

    pool = offline.embeddings("/data/derm", "ctr", "user", "2025-03-07")
    rows = offline.as_of("/data/derm", examples, ["ctr", "cvr"])

A source is a home, the folder of a lake, or `s3://bucket/prefix` (the AWS_* variables say how it is
reached). Needs pyarrow and deltalake, and no service. Whatever understands Arrow takes the results
without copying them: Polars, DuckDB, pandas, Spark, torch.

Shapes: N rows of a batch, D vector width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.client.joins import AsOfJoin
from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Release
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import one_array, vector_array
from feature_store.lake.staging import read_parts
from feature_store.online.releases import Releases
from feature_store.reading.lookup import PoolVectors

Source = Path | str

_COLUMNS = ("entity_id", "embedding", "last_active", "space_id")
# Of the vectors of a batch that a join yields; each batch reads its pools once.
_BATCH_BYTES = 256 << 20


def days(source: Source, upstream: Upstream, entity: Entity) -> tuple[str, ...]:
    """The days whose pool there is, oldest first; released ones are in `releases`.

    Raises:
        InputError: the source is neither a home nor a lake.
    """
    return _lake(source).days(pool_table(upstream, entity).name)


def releases(source: Source) -> tuple[Release, ...]:
    """Every release recorded in a home, by id, which begins with its day.

    Raises:
        InputError: the source is no home.
        ManifestCorrupt: the record of a release was changed since it was written.
    """
    folder = Path(source)
    if not (folder / "home.json").exists():
        raise InputError(
            "releases are recorded in a home",
            where=str(source),
            expected="the folder DERM_HOME, which has a file home.json",
        )
    return tuple(Releases.read(path) for path in sorted((folder / "releases").glob("*.json")))


def embeddings(
    source: Source,
    upstream: Upstream,
    entity: Entity,
    ds: str,
    ids: Sequence[str] | pa.Array | None = None,
) -> pa.Table:
    """The pool at the end of a day, or the part of it that is asked for.

    Args:
        ids: whose vectors; those that the pool does not know are left out. None: everybody's.

    Returns:
        `entity_id`, `embedding` (fixed-size list of D float32), `last_active` (day of the last
        event) and `space_id`: vectors of two spaces have nothing in common. By bucket, then by id.

    Raises:
        InputError: the source is neither a home nor a lake.
        MissingInput: there is no such pool, or not on that day.
    """
    pool = PoolVectors(_lake(source), upstream, entity)
    schema = _unpacked(pool, pool.no_rows()).schema
    return pa.Table.from_batches(_batches(pool, ds, ids), schema)


def batches(
    source: Source,
    upstream: Upstream,
    entity: Entity,
    ds: str,
    ids: Sequence[str] | pa.Array | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of `embeddings` a row group at a time: memory is bounded by one.

    Raises:
        InputError: the source is neither a home nor a lake.
        MissingInput: there is no such pool, or not on that day.
    """
    yield from _batches(PoolVectors(_lake(source), upstream, entity), ds, ids)


def as_of(
    source: Source,
    examples: pa.Table | pa.RecordBatchReader,
    upstreams: Sequence[Upstream],
    *,
    lag_days: int = 1,
    entities: Sequence[Entity] = ENTITIES,
    time: str = "ts",
    same_day: bool = False,
    unknown_days: bool = False,
    batch_bytes: int = _BATCH_BYTES,
) -> pa.RecordBatchReader:
    """Join examples with the vectors that stood when they happened: a point-in-time join.

    An example of day d gets the pool of d - `lag_days`: what serving could have had. Every column
    of the examples stays; for each upstream and entity come `<upstream>_<entity>_vector` (D
    float32, zeros where the pool does not know the id) and `<upstream>_<entity>_found`. Memory is
    bounded by a batch, whatever the number of examples and days; examples that follow each other in
    time read each pool a few times, unordered ones once per batch and day.

    Args:
        examples: rows with `<entity>_id` for each entity, and a time.
        lag_days: how many days old the pool is.
        entities: whose vectors.
        time: the column of an example's time: a timestamp with a zone, a date, or a day as text.
        same_day: allow `lag_days=0`, which reads what happened later on the same day: for measuring
            what such a leak would be worth, never for training.
        unknown_days: let examples of days before the first pool through, with nobody found.
        batch_bytes: bound of the vectors of one batch that is yielded.

    Raises:
        InputError: a column is missing or of another type, or the lag would read the future.
        MissingInput: the pool of a day is not there (when the batch is read).
        ContractViolation: the pools are of two embedding spaces (when the batch is read).
    """
    if lag_days < (0 if same_day else 1):
        raise InputError(
            "this lag reads the future: the pool of a day holds what happened until its end",
            expected="lag_days of 1 or more (same_day=True allows 0, to measure the leak)",
            found=str(lag_days),
        )
    lake = _lake(source)
    pools = [(u, e) for u in upstreams for e in entities]
    join = AsOfJoin(
        lake, pools, lag_days=lag_days, time=time, unknown_days=unknown_days, size=batch_bytes
    )
    reader = examples.to_reader() if isinstance(examples, pa.Table) else examples
    schema = join.schema(reader.schema)
    return pa.RecordBatchReader.from_batches(schema, join.batches(reader))


def _lake(source: Source) -> Lake:
    text = str(source)
    if text.startswith("s3://"):
        return Lake(text)
    folder = Path(source)
    root = folder / "lake" if (folder / "home.json").exists() else folder
    if not root.is_dir():
        raise InputError(
            "there is no lake",
            where=text,
            expected="a home (DERM_HOME), the folder of a lake, or s3://bucket/prefix",
            hint="where DERM_LAKE is set, it is the lake's address",
        )
    return Lake(root)


def _batches(
    pool: PoolVectors, ds: str, ids: Sequence[str] | pa.Array | None
) -> Iterator[pa.RecordBatch]:
    wanted = None if ids is None else pa.array(ids, pa.string()).unique()
    for files, of_bucket in pool.files(ds, wanted):
        for part in read_parts(files, pool.table, _COLUMNS):
            if of_bucket is not None:
                part = part.filter(pc.is_in(part["entity_id"], value_set=of_bucket))
            if len(part):
                yield _unpacked(pool, part)


def _unpacked(pool: PoolVectors, part: pa.Table) -> pa.RecordBatch:
    vectors = vector_array(pool.floats(part["embedding"]))
    columns = {"entity_id": one_array(part["entity_id"]), "embedding": vectors}
    columns |= {name: one_array(part[name]) for name in ("last_active", "space_id")}
    return pa.record_batch(columns)
