"""The contenders of the merge benchmark: `merge_contenders.py NAME FOLDER CORES LIMIT_MB`.

Reads commands from standard input, a line each: `start` (import, open a session), `prepare`
(anything that a real day would not do, such as undoing the last round), `merge`. Answers one line
of JSON. All of them do the same work: update with w = 0.8, insert, carry over, prune.
"""

import json
import multiprocessing
import os
import resource
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

W = 0.8
DS, CUTOFF = "2025-03-02", "2024-12-02"
POOL, DAILY = "embeddings/ctr/user/pool", "embeddings/ctr/user/daily"


def files(folder: Path, table: str) -> list[str]:
    """The Parquet files of a table as it was generated, by bucket."""
    ds = "2025-03-01" if table == POOL else DS
    return sorted(str(p) for p in (folder / "lake" / table / f"ds={ds}").rglob("*.parquet"))


class Ours:
    """The job: Spark schedules, tasks merge packed buffers, one Delta commit."""

    def __init__(self, folder: Path, cores: int) -> None:
        from feature_store.config import AggregationConfig
        from feature_store.contracts.tables import pool_table
        from feature_store.lake.lake import Lake
        from feature_store.lake.layout import Layout
        from feature_store.spark import aggregation, session, tasks

        self.lake, self.table = Lake(folder / "lake"), pool_table("ctr", "user")
        self.run, self.aggregation = tasks.run_tasks, aggregation
        self.config = AggregationConfig(w=W)
        memory = os.environ.get("DERM_SPARK_MEMORY", "1g")
        self.spark = session.spark_context(f"local[{cores},3]", memory, folder / "spark")
        found = json.loads((folder / "layout.json").read_text())
        self.layout = Layout(dim=found["dim"], buckets=found["buckets"])

    def prepare(self) -> None:
        """The last round's files are no longer needed: a day's partition is overwritten.

        Spark ends workers that were idle for a minute, as they are while the others take their
        turn; in a real day dedup has just used them. Starting them belongs to the session.
        """
        shutil.rmtree(Path(self.lake.path(POOL), f"ds={DS}"), ignore_errors=True)
        self.run(self.spark, nothing, self.tasks())

    def merge(self) -> int:
        results = self.run(self.spark, self.aggregation.merge_bucket, self.tasks())
        staged = [r.file for r in results]
        return self.lake.commit(self.table, DS, staged, properties=self.layout.properties()).rows

    def tasks(self) -> list[Any]:
        pool = self.lake.bucket_files(POOL, "2025-03-01")
        daily = self.lake.bucket_files(DAILY, DS)
        return [
            self.aggregation.MergeTask(
                root=self.lake.root,
                upstream="ctr",
                entity="user",
                ds=DS,
                bucket=bucket,
                layout=self.layout,
                config=self.config,
                pool_files=pool[bucket],
                daily_files=daily[bucket],
            )
            for bucket in pool
        ]


def nothing(_: Any) -> None:
    """What a worker does that is only woken up."""


def floor_bucket(pool_file: str, daily_file: str, out: str, dim: int) -> int:
    """Read both files, do the arithmetic on as many rows, write as many bytes: no alignment."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_store.contracts.tables import pool_table
    from feature_store.lake.schemas import pack, unpack
    from feature_store.lake.staging import parquet_options

    tables = []
    for file in (pool_file, daily_file):
        with pq.ParquetFile(file, memory_map=True) as parquet:
            tables.append(parquet.read(use_threads=False))
    pool, daily = tables
    old, new = unpack(pool["embedding"], dim), unpack(daily["embedding"], dim)
    n, w = len(new), np.float32(W)
    updated = pack(old[:n] * w + new * (np.float32(1) - w))
    vectors = pa.chunked_array([updated, *pool["embedding"].slice(n).chunks])
    position = pool.schema.get_field_index("embedding")
    merged = pool.set_column(position, pool.schema.field("embedding"), vectors)
    pq.write_table(merged, out, **parquet_options(pool_table("ctr", "user")))
    return len(merged)


class Floor:
    """The least that any merge must do, in as many processes as there are cores."""

    def __init__(self, folder: Path, cores: int) -> None:
        self.folder, self.dim = folder, json.loads((folder / "layout.json").read_text())["dim"]
        context = multiprocessing.get_context("forkserver")
        self.workers = ProcessPoolExecutor(cores, mp_context=context)
        self.out = folder / "floor"

    def prepare(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def merge(self) -> int:
        pairs = list(zip(files(self.folder, POOL), files(self.folder, DAILY), strict=True))
        outs = [str(self.out / f"{i}.parquet") for i in range(len(pairs))]
        jobs = [
            self.workers.submit(floor_bucket, pool, daily, out, self.dim)
            for (pool, daily), out in zip(pairs, outs, strict=True)
        ]
        return sum(job.result() for job in jobs)


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


CONTENDERS: dict[str, Callable[[Path, int], Any]] = {
    "ours": Ours,
    "floor": Floor,
    "duckdb": DuckDB,
    "duckdb_numpy": DuckDBWithNumPy,
    "polars": Polars,
    "delta_rs": DeltaRs,
    "spark_sql": SparkSQL,
}


def main() -> None:
    """Serve one contender."""
    name, folder, cores = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    limit = int(sys.argv[4]) << 20
    if limit:
        # Child processes, the JVM and its Python workers too, inherit it.
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    contender: Any = None
    for line in sys.stdin:
        answer = {}
        if line.strip() == "start":
            contender = CONTENDERS[name](folder, cores)
        elif line.strip() == "prepare":
            contender.prepare()
        else:
            answer["rows"] = contender.merge()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
