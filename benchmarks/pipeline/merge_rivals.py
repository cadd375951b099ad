"""The rivals of the merge benchmark, each as its users would write it; see `merge_contenders`.

DuckDB and Polars are of another environment: each is imported by the class that needs it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

W = 0.8
DS, CUTOFF = "2025-03-02", "2024-12-02"
POOL, DAILY = "embeddings/ctr/user/pool", "embeddings/ctr/user/daily"


def files(folder: Path, table: str) -> list[str]:
    """The Parquet files of a table as it was generated, by bucket."""
    ds = "2025-03-01" if table == POOL else DS
    return sorted(str(p) for p in (folder / "lake" / table / f"ds={ds}").rglob("*.parquet"))


class DuckDB:
    """DuckDB alone: a full outer join and list functions over FLOAT[] vectors."""

    def __init__(self, folder: Path, cores: int) -> None:
        import duckdb

        self.folder, self.out = folder, folder / "duckdb.parquet"
        self.db = duckdb.connect(
            config={"threads": cores, "temp_directory": str(folder / "duckdb")}
        )
        self.db.execute("SET preserve_insertion_order = false")

    def prepare(self) -> None:
        self.out.unlink(missing_ok=True)

    def merge(self) -> int:
        pool, daily = (str(self.folder / "arrays" / n / "*.parquet") for n in ("pool", "daily"))
        w = f"{W}::FLOAT"
        pairs = "list_zip(p.embedding, d.embedding)"
        step = f"list_transform({pairs}, lambda x: x[1] * {w} + x[2] * (1::FLOAT - {w}))"
        query = f"""
            SELECT coalesce(p.entity_id, d.entity_id) AS entity_id,
                   CASE WHEN p.entity_id IS NULL THEN d.embedding
                        WHEN d.entity_id IS NULL THEN p.embedding
                        ELSE {step} END AS embedding,
                   if(d.entity_id IS NULL, p.last_daily, '{DS}') AS last_daily,
                   if(d.entity_id IS NULL, p.last_active, '{DS}') AS last_active,
                   coalesce(p.updates, 0) + if(d.entity_id IS NULL, 0, 1) AS updates,
                   coalesce(p.space_id, d.space_id) AS space_id
            FROM read_parquet('{pool}') p FULL JOIN read_parquet('{daily}') d
              ON p.entity_id = d.entity_id
            WHERE d.entity_id IS NOT NULL OR p.last_active >= '{CUTOFF}'"""
        target = f"TO '{self.out}' (FORMAT parquet, COMPRESSION uncompressed)"
        return int(self.db.execute(f"COPY ({query}) {target}").fetchone()[0])


class DuckDBWithNumPy:
    """DuckDB joins packed vectors; the average is an Arrow function over NumPy views."""

    def __init__(self, folder: Path, cores: int) -> None:
        import duckdb
        import numpy as np
        import pyarrow as pa

        def average(past: pa.ChunkedArray, daily: pa.ChunkedArray) -> pa.Array:
            old, new = (self._floats(c) for c in (past, daily))
            result = old * np.float32(W) + new * (np.float32(1) - np.float32(W))
            offsets = np.arange(len(past) + 1, dtype=np.int32) * (4 * self.dim)
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(result)]
            return pa.Array.from_buffers(pa.binary(), len(past), buffers)

        self.np = np
        self.folder, self.dim = folder, json.loads((folder / "layout.json").read_text())["dim"]
        self.db = duckdb.connect(
            config={"threads": cores, "temp_directory": str(folder / "duckdb")}
        )
        self.db.execute("SET preserve_insertion_order = false")
        self.db.create_function("average", average, ["BLOB", "BLOB"], "BLOB", type="arrow")
        self.out = folder / "duckdb.parquet"

    def _floats(self, column: Any) -> Any:
        array = column.combine_chunks()
        start = array.offset * 4 * self.dim
        data = self.np.frombuffer(array.buffers()[2], self.np.uint8)
        return data[start : start + len(array) * 4 * self.dim].view("<f4")

    def prepare(self) -> None:
        self.out.unlink(missing_ok=True)

    def merge(self) -> int:
        pool, daily = files(self.folder, POOL), files(self.folder, DAILY)
        both = "p.entity_id IS NOT NULL AND d.entity_id IS NOT NULL"
        query = f"""
            WITH p AS (SELECT * FROM read_parquet({pool})),
                 d AS (SELECT * FROM read_parquet({daily})),
                 hit AS (SELECT p.entity_id, average(p.embedding, d.embedding) AS embedding,
                                '{DS}' AS last_daily, '{DS}' AS last_active,
                                p.updates + 1 AS updates, p.space_id
                         FROM p JOIN d USING (entity_id)),
                 rest AS (SELECT coalesce(p.entity_id, d.entity_id) AS entity_id,
                                 coalesce(p.embedding, d.embedding) AS embedding,
                                 coalesce(p.last_daily, '{DS}') AS last_daily,
                                 coalesce(p.last_active, '{DS}') AS last_active,
                                 coalesce(p.updates, 1) AS updates,
                                 coalesce(p.space_id, d.space_id) AS space_id
                          FROM p FULL JOIN d USING (entity_id)
                          WHERE NOT ({both}) AND coalesce(p.last_active, '{DS}') >= '{CUTOFF}')
            SELECT * FROM hit UNION ALL SELECT * FROM rest"""
        target = f"TO '{self.out}' (FORMAT parquet, COMPRESSION uncompressed)"
        return int(self.db.execute(f"COPY ({query}) {target}").fetchone()[0])


class Polars:
    """A full join on packed vectors seen as Array(Float32), Polars' own arithmetic."""

    def __init__(self, folder: Path, cores: int) -> None:
        import os

        os.environ["POLARS_MAX_THREADS"] = str(cores)
        import polars as pl

        self.pl, self.folder = pl, folder
        self.dim = json.loads((folder / "layout.json").read_text())["dim"]
        self.out = folder / "polars.parquet"

    def prepare(self) -> None:
        self.out.unlink(missing_ok=True)

    def merge(self) -> int:
        pl = self.pl
        vector = pl.Array(pl.Float32, self.dim)
        pool = pl.scan_parquet(files(self.folder, POOL), hive_partitioning=False)
        daily = pl.scan_parquet(files(self.folder, DAILY), hive_partitioning=False)
        pool = pool.drop("previous_daily")
        daily = daily.select("entity_id", today="embedding", space="space_id")
        joined = pool.join(daily, on="entity_id", how="full", coalesce=True)
        seen = pl.col("today").is_not_null()
        old, new = (pl.col(c).bin.reinterpret(dtype=vector) for c in ("embedding", "today"))
        hits = joined.filter(seen & pl.col("embedding").is_not_null()).select(
            "entity_id",
            embedding=old * pl.lit(W, pl.Float32) + new * pl.lit(1 - W, pl.Float32),
            last_daily=pl.lit(DS),
            last_active=pl.lit(DS),
            updates=pl.col("updates") + 1,
            space_id="space_id",
        )
        rest = joined.filter(~(seen & pl.col("embedding").is_not_null())).select(
            "entity_id",
            embedding=pl.coalesce("embedding", "today").bin.reinterpret(dtype=vector),
            last_daily=pl.col("last_daily").fill_null(DS),
            last_active=pl.col("last_active").fill_null(DS),
            updates=pl.col("updates").fill_null(1),
            space_id=pl.coalesce("space_id", "space"),
        )
        kept = rest.filter(pl.col("last_active") >= CUTOFF)
        result = pl.concat([hits, kept])
        result.sink_parquet(self.out, compression="uncompressed", statistics=False)
        return int(pl.scan_parquet(self.out).select(pl.len()).collect().item())


class DeltaRs:
    """MERGE with vectors that NumPy has averaged; it rewrites every file."""

    def __init__(self, folder: Path, cores: int) -> None:
        import deltalake

        self.delta, self.folder = deltalake, folder
        self.dim = json.loads((folder / "layout.json").read_text())["dim"]
        self.path = str(folder / "delta_rs")
        self.cores = cores

    def prepare(self) -> None:
        """A fresh copy of the pool: MERGE changes the table it works on."""
        import pyarrow.dataset as pads

        shutil.rmtree(self.path, ignore_errors=True)
        self.delta.write_deltalake(self.path, pads.dataset(files(self.folder, POOL)).to_table())

    def merge(self) -> int:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.dataset as pads

        from feature_store.lake.schemas import pack, unpack

        daily = pads.dataset(files(self.folder, DAILY)).to_table()
        pool = pads.dataset(files(self.folder, POOL)).to_table(
            columns=["entity_id", "embedding"],
            filter=pc.field("entity_id").isin(daily["entity_id"].combine_chunks()),
        )
        match = pc.index_in(daily["entity_id"], value_set=pool["entity_id"].combine_chunks())
        match = match.fill_null(-1).to_numpy()
        vectors = unpack(daily["embedding"], self.dim).copy()
        hit, w = match >= 0, np.float32(W)
        vectors[hit] *= np.float32(1) - w
        vectors[hit] += unpack(pool["embedding"], self.dim)[match[hit]] * w
        source = pa.table(
            {
                "entity_id": daily["entity_id"],
                "embedding": pack(vectors),
                "space_id": daily["space_id"],
            }
        )
        day = f"'{DS}'"
        values = {c: f"s.{c}" for c in ("entity_id", "embedding", "space_id")}
        days = {"last_daily": day, "last_active": day}
        merger = self.delta.DeltaTable(self.path).merge(
            source,
            predicate="t.entity_id = s.entity_id",
            source_alias="s",
            target_alias="t",
            streamed_exec=False,
        )
        counts = (
            merger.when_matched_update({**values, **days, "updates": "t.updates + 1"})
            .when_not_matched_insert({**values, **days, "updates": "1"})
            .when_not_matched_by_source_delete(f"t.last_active < '{CUTOFF}'")
            .execute()
        )
        return int(counts["num_output_rows"])


class SparkSQL:
    """The textbook: a full outer join, arrays and zip_with."""

    def __init__(self, folder: Path, cores: int) -> None:
        from pyspark.sql import SparkSession

        self.folder, self.out = folder, str(folder / "spark_sql")
        builder = SparkSession.builder.master(f"local[{cores}]")
        options = {
            "spark.ui.enabled": "false",
            "spark.driver.memory": "6g",
            "spark.sql.shuffle.partitions": str(4 * cores),
            "spark.local.dir": str(folder / "spark_local"),
            "spark.sql.parquet.compression.codec": "none",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.log.level": "ERROR",
        }
        for key, value in options.items():
            builder = builder.config(key, value)
        self.spark = builder.getOrCreate()

    def prepare(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)

    def merge(self) -> int:
        for name in ("pool", "daily"):
            path = str(self.folder / "arrays" / name)
            self.spark.read.parquet(path).createOrReplaceTempView(name)
        w = f"cast({W} AS float)"
        step = f"(a, b) -> a * {w} + b * (cast(1 AS float) - {w})"
        result = self.spark.sql(f"""
            SELECT coalesce(p.entity_id, d.entity_id) AS entity_id,
                   CASE WHEN p.entity_id IS NULL THEN d.embedding
                        WHEN d.entity_id IS NULL THEN p.embedding
                        ELSE zip_with(p.embedding, d.embedding, {step}) END AS embedding,
                   if(d.entity_id IS NULL, p.last_daily, '{DS}') AS last_daily,
                   if(d.entity_id IS NULL, p.last_active, '{DS}') AS last_active,
                   coalesce(p.updates, 0) + if(d.entity_id IS NULL, 0, 1) AS updates,
                   coalesce(p.space_id, d.space_id) AS space_id
            FROM pool p FULL OUTER JOIN daily d ON p.entity_id = d.entity_id
            WHERE d.entity_id IS NOT NULL OR p.last_active >= '{CUTOFF}'""")
        result.write.parquet(self.out)
        return self.spark.read.parquet(self.out).count()
