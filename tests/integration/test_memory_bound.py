"""A pool of several times a worker's memory merges; taken as one table it does not fit."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pytest

from feature_store.config import AggregationConfig
from feature_store.contracts.base import shift_day
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.embeddings.aggregate import merge
from feature_store.lake.lake import rows_digest, stage_file
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema, pack
from feature_store.lake.staging import read_files
from feature_store.lake.storage import Storage
from feature_store.spark.aggregation import MergeTask, merge_bucket
from feature_store.spark.session import spark_context
from feature_store.spark.tasks import run_tasks
from tests.aggregation_fixtures import FIRST

pytestmark = pytest.mark.spark

DAY = shift_day(FIRST, 1)
POOL, DAILY = pool_table("ctr", "user"), daily_table("ctr", "user")
DIM, BUCKETS, ROWS = 256, 48, 16_384
POOL_BYTES = 4 * DIM * BUCKETS * ROWS
# What a worker may allocate beyond the programs that it has loaded.
HEADROOM = POOL_BYTES // 5
CONFIG = AggregationConfig()

T, R = TypeVar("T"), TypeVar("R")


def limited(function: Callable[[T], R]) -> Callable[[T], R]:
    """The function under a limit of the kernel on what its process may allocate."""

    def call(task: T) -> R:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        status = Path("/proc/self/status").read_text().splitlines()
        (loaded,) = (int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (loaded + HEADROOM, before[1]))
        try:
            return function(task)
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)

    return call


def merge_at_once(task: MergeTask) -> str:
    """What a merge is without buckets."""
    try:
        pool, daily = read_files(task.pool_files, POOL), read_files(task.daily_files, DAILY)
        merge(pool, daily, task.ds, CONFIG, DIM)
    except MemoryError:
        return "out of memory"
    return "merged"


def pool_rows(bucket: int, vectors: np.ndarray) -> pa.Table:
    n = len(vectors)
    columns = {
        "entity_id": pa.array([f"u{bucket:02}-{i:06}" for i in range(n)], pa.string()),
        "embedding": pack(vectors + np.float32(bucket)),
        "last_daily": pa.repeat(FIRST, n),
        "last_active": pa.repeat(FIRST, n),
        "updates": pa.array(np.ones(n, np.int32)),
        "previous_daily": pa.nulls(n, pa.binary()),
        "space_id": pa.repeat("space-1", n),
    }
    return pa.table(columns).cast(arrow_schema(POOL))


def daily_rows(pool: pa.Table) -> pa.Table:
    """A day on which every fifth entity was seen."""
    seen = pool.take(pa.array(np.arange(0, len(pool), 5)))
    n = len(seen)
    columns = {
        "entity_id": seen["entity_id"],
        "ts": pa.array(np.zeros(n, np.int64), pa.timestamp("us", tz="UTC")),
        "embedding": seen["embedding"],
        "events": pa.array(np.ones(n, np.int32)),
        "intraday_cosine": pa.nulls(n, pa.float32()),
        "snapshot_id": pa.repeat("snapshot", n),
        "space_id": seen["space_id"],
    }
    return pa.table(columns).cast(arrow_schema(DAILY))


def bucket_task(root: Storage, bucket: int, vectors: np.ndarray) -> MergeTask:
    """A bucket of the pool and of the day on disk, and the task that merges them."""
    pool = pool_rows(bucket, vectors)
    staged = {
        table.name: stage_file(root, table, ds, rows, bucket=bucket)
        for table, ds, rows in ((POOL, FIRST, pool), (DAILY, DAY, daily_rows(pool)))
    }
    files = {name: (root.uri(name, file.path),) for name, file in staged.items()}
    return MergeTask(
        root=root,
        upstream="ctr",
        entity="user",
        ds=DAY,
        bucket=bucket,
        layout=Layout(dim=DIM, buckets=BUCKETS),
        config=CONFIG,
        pool_files=files[POOL.name],
        daily_files=files[DAILY.name],
    )


def test_memory_is_bounded_by_a_bucket(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM), np.float32)
    tasks = [bucket_task(Storage.of(tmp_path), bucket, vectors) for bucket in range(BUCKETS)]
    spark = spark_context("local[2,3]", "512m", tmp_path / "scratch")
    results = run_tasks(spark, limited(merge_bucket), tasks)
    assert sum(r.file.size for r in results) > POOL_BYTES
    assert {r.counts.updated for r in results} == {len(range(0, ROWS, 5))}
    pool = read_files(tasks[-1].pool_files, POOL)
    expected, _ = merge(pool, read_files(tasks[-1].daily_files, DAILY), DAY, CONFIG, DIM)
    assert results[-1].file.digest == rows_digest(expected.cast(arrow_schema(POOL)))
    everything = MergeTask(
        root=Storage.of(tmp_path),
        upstream="ctr",
        entity="user",
        ds=DAY,
        bucket=0,
        layout=Layout(dim=DIM, buckets=1),
        config=CONFIG,
        pool_files=tuple(f for t in tasks for f in t.pool_files),
        daily_files=tuple(f for t in tasks for f in t.daily_files),
    )
    assert run_tasks(spark, limited(merge_at_once), [everything]) == ["out of memory"]
