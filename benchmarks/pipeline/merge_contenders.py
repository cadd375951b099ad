"""The contenders of the merge benchmark, a process each: `NAME FOLDER CORES LIMIT_MB`.

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

from benchmarks.pipeline.merge_rivals import (
    DAILY,
    DS,
    POOL,
    DeltaRs,
    DuckDB,
    DuckDBWithNumPy,
    Polars,
    SparkSQL,
    W,
    files,
)


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
