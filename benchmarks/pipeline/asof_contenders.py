"""The contenders of the point-in-time join: `NAME FOLDER` runs one, once.

All of them join the same examples with the same pools, of the day before each example, and look at
every joined batch; nobody writes. DuckDB and Polars get the packed vectors as they lie in the
files, which spares them what ours does: making lists of floats of them.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

POOL = "lake/embeddings/ctr/user/pool"
_BATCH_ROWS = 65_536
_CORES = 2


def ours(folder: Path) -> tuple[int, int]:
    """The client's `as_of`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feature_store.client import offline

    rows = found = 0
    with pq.ParquetFile(folder / "examples.parquet") as examples:
        batches = examples.iter_batches(_BATCH_ROWS)
        reader = pa.RecordBatchReader.from_batches(examples.schema_arrow, batches)
        joined = offline.as_of(folder / "lake", reader, ["ctr"], entities=["user"])
        for batch in joined:
            rows += len(batch)
            found += batch.column("ctr_user_found").true_count
    return rows, found


def duckdb(folder: Path) -> tuple[int, int]:
    """A left join on id and day over the files, partitions pruned by name."""
    import duckdb

    settings = {"threads": _CORES, "temp_directory": str(folder / "duckdb")}
    database = duckdb.connect(config=settings)
    database.execute("SET preserve_insertion_order = false")
    joined = database.sql(f"""
        SELECT e.*, p.embedding
        FROM read_parquet('{folder}/examples.parquet') e
        LEFT JOIN read_parquet('{folder}/{POOL}/*/*/*.parquet', hive_partitioning = true,
                               hive_types = {{'ds': VARCHAR}}) p
          ON p.entity_id = e.user_id AND p.ds = strftime(e.ts - INTERVAL 1 DAY, '%Y-%m-%d')""")
    rows = found = 0
    for batch in joined.to_arrow_reader(_BATCH_ROWS):
        rows += len(batch)
        found += len(batch) - batch.column("embedding").null_count
    return rows, found


def polars(folder: Path) -> tuple[int, int]:
    """A left join on id and day, by the streaming engine."""
    os.environ["POLARS_MAX_THREADS"] = str(_CORES)
    import polars as pl

    examples = pl.scan_parquet(folder / "examples.parquet").with_columns(
        ds=(pl.col("ts") - pl.duration(days=1)).dt.strftime("%Y-%m-%d")
    )
    pool = pl.scan_parquet(
        f"{folder}/{POOL}/*/*/*.parquet",
        hive_schema={"ds": pl.String, "bucket": pl.Int32},
    ).select("entity_id", "embedding", "ds")
    joined = examples.join(
        pool, left_on=["user_id", "ds"], right_on=["entity_id", "ds"], how="left"
    )
    rows = found = 0
    for batch in joined.collect_batches(chunk_size=_BATCH_ROWS, engine="streaming"):
        rows += len(batch)
        found += len(batch) - batch["embedding"].null_count()
    return rows, found


def floor(folder: Path) -> tuple[int, int]:
    """Ids and vectors of every file read, and as many vectors copied as there are examples."""
    import numpy as np
    import pyarrow.parquet as pq

    dim = json.loads((folder / "layout.json").read_text())["dim"]
    with pq.ParquetFile(folder / "examples.parquet") as examples:
        rows = examples.metadata.num_rows
    files = sorted((folder / POOL).rglob("*.parquet"))
    for file in files:
        with pq.ParquetFile(file, memory_map=True) as parquet:
            data = parquet.read(["entity_id", "embedding"], use_threads=False)
        width = 4 * dim
        vectors = np.frombuffer(data["embedding"].combine_chunks().buffers()[2], np.uint8)
        at = np.random.default_rng(0).integers(0, len(data), rows // len(files))
        vectors.reshape(-1, width)[at].sum()
    return rows, 0


CONTENDERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "ours": ours,
    "floor": floor,
    "duckdb": duckdb,
    "polars": polars,
}


class _Peak:
    """Samples the anonymous memory of this process: files that are mapped do not count."""

    def __init__(self) -> None:
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """The most that was seen, in bytes."""
        self._done.set()
        self._thread.join()
        return self.bytes

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            [anonymous] = [line.split()[1] for line in lines if line.startswith("RssAnon")]
            self.bytes = max(self.bytes, int(anonymous) * 1024)


def main() -> None:
    """Run one contender, say what it took."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    peak = _Peak()
    wall, cpu = time.perf_counter(), time.process_time()
    rows, found = CONTENDERS[name](folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    numbers = {"rows_per_s": rows / wall, "wall_s": wall, "cpu_s": cpu, "found": found}
    sys.stdout.write(json.dumps({**numbers, "peak_mb": peak.stop() / 2**20}) + "\n")


if __name__ == "__main__":
    main()
