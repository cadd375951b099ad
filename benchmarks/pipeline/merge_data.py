"""Data of the merge benchmark: a pool of yesterday and a day, in our layout, on disk.

Usage: merge_data.py FOLDER ENTITIES DIM ACTIVE BUCKET_MB CONTENDERS
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contracts.base import shift_day
from feature_store.contracts.tables import Table, daily_table, pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema, pack

DS = "2025-03-02"
YESTERDAY = shift_day(DS, -1)
SPACE = "2025-01-01-0123456789abcdef"


def pool_rows(ids: pa.Array, rng: np.random.Generator, dim: int) -> pa.Table:
    """Pool rows whose last activity is spread over the days that are kept; some will be pruned."""
    age = rng.integers(0, 91, len(ids))
    days = pa.array([shift_day(YESTERDAY, -a) for a in range(91)]).take(pa.array(age))
    columns = {
        "entity_id": ids,
        "embedding": pack(rng.standard_normal((len(ids), dim), dtype=np.float32)),
        "last_daily": days,
        "last_active": days,
        "updates": pa.array(rng.integers(1, 50, len(ids)).astype(np.int32)),
        "previous_daily": pa.nulls(len(ids), pa.binary()),
        "space_id": pa.repeat(SPACE, len(ids)),
    }
    return pa.table(columns).cast(arrow_schema(pool_table("ctr", "user")))


def daily_rows(ids: pa.Array, rng: np.random.Generator, dim: int) -> pa.Table:
    """One row for each active entity."""
    n = len(ids)
    midnight = np.datetime64(DS, "us").astype(np.int64)
    columns = {
        "entity_id": ids,
        "ts": pa.array(midnight + rng.integers(0, 86_400_000_000, n), pa.timestamp("us", "UTC")),
        "embedding": pack(rng.standard_normal((n, dim), dtype=np.float32)),
        "events": pa.array(rng.integers(1, 5, n).astype(np.int32)),
        "intraday_cosine": pa.nulls(n, pa.float32()),
        "snapshot_id": pa.repeat(f"{DS}-0123456789abcdef", n),
        "space_id": pa.repeat(SPACE, n),
    }
    return pa.table(columns).cast(arrow_schema(daily_table("ctr", "user")))


def ids_by_bucket(entities: int, new: int, buckets: int) -> list[tuple[pa.Array, pa.Array]]:
    """Sorted ids of each bucket: those of the pool, and those that are new today."""
    numbers = pa.array(np.arange(entities + new, dtype=np.int64) * 7919 % (10**9))
    ids = pc.binary_join_element_wise("u", pc.cast(numbers, pa.string()), "")
    bucket, is_new = bucket_of(ids, buckets), np.arange(entities + new) >= entities
    parts = []
    for b in range(buckets):
        old = ids.take(pa.array(np.flatnonzero((bucket == b) & ~is_new)))
        fresh = ids.take(pa.array(np.flatnonzero((bucket == b) & is_new)))
        parts.append((old.take(pc.sort_indices(old)), fresh))
    return parts


def array_copy(folder: Path, bucket: int, data: pa.Table, dim: int) -> None:
    """The same rows with vectors as list<float>, the form that SQL can calculate with."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.frombuffer(data["embedding"].combine_chunks().buffers()[2], "<f4")
    offsets = pa.array(np.arange(data.num_rows + 1, dtype=np.int32) * dim)
    vectors = pa.ListArray.from_arrays(offsets, pa.array(values))
    position = data.schema.get_field_index("embedding")
    table = data.set_column(position, "embedding", vectors)
    pq.write_table(table, folder / f"{bucket:05d}.parquet", compression="none")


def main() -> None:
    """Write Delta tables, and a list<float> copy for those that calculate in SQL."""
    folder, entities, dim = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    active, bucket_mb, contenders = float(sys.argv[4]), int(sys.argv[5]), sys.argv[6].split(",")
    buckets = max(2, math.ceil(entities * dim * 4 / (bucket_mb * 2**20)))
    new = int(entities * active * 0.02)
    lake, layout = Lake(folder / "lake"), Layout(dim=dim, buckets=buckets)
    tables: dict[str, tuple[Table, list]] = {
        "pool": (pool_table("ctr", "user"), []),
        "daily": (daily_table("ctr", "user"), []),
    }
    for b, (old, fresh) in enumerate(ids_by_bucket(entities, new, buckets)):
        rng = np.random.default_rng([entities, dim, b])
        chosen = old.filter(pa.array(rng.random(len(old)) < active))
        seen = pa.concat_arrays([chosen, fresh])
        rows = {
            "pool": pool_rows(old, rng, dim),
            "daily": daily_rows(seen.take(pc.sort_indices(seen)), rng, dim),
        }
        for name, (table, staged) in tables.items():
            ds = YESTERDAY if name == "pool" else DS
            staged.append(stage_file(lake.root, table, ds, rows[name], bucket=b))
            if {"spark_sql", "duckdb"} & set(contenders):
                array_copy(folder / "arrays" / name, b, rows[name], dim)
    for name, (table, staged) in tables.items():
        ds = YESTERDAY if name == "pool" else DS
        lake.commit(table, ds, staged, properties=layout.properties())
    size = sum(f.size for _, staged in tables.values() for f in staged)
    found = {"dim": dim, "buckets": buckets, "active": active, "bytes_read": size}
    (folder / "layout.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
