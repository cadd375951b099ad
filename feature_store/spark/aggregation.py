"""What a task does with one bucket: read its files, aggregate, stage one file.

Imports neither Delta nor settings: a Spark worker starts in a fraction of a second, and only the
driver commits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.config import AggregationConfig
from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.embeddings.aggregate import MergeCounts, dedup, merge_parts
from feature_store.lake.buckets import bucket_of
from feature_store.lake.layout import Layout
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.staging import StagedFile, read_files, read_parts, stage_file, stage_parts
from feature_store.lake.storage import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupTask:
    """One bucket of raw to turn into daily."""

    root: Storage
    upstream: Upstream
    entity: Entity
    ds: str
    bucket: int
    layout: Layout
    raw_files: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        """Table and bucket."""
        return daily_table(self.upstream, self.entity).name, self.bucket

    @property
    def reads(self) -> tuple[str, ...]:
        """The files of the bucket of raw."""
        return self.raw_files


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeTask:
    """One bucket of yesterday's pool and today's daily to turn into today's pool."""

    root: Storage
    upstream: Upstream
    entity: Entity
    ds: str
    bucket: int
    layout: Layout
    config: AggregationConfig
    pool_files: tuple[str, ...]
    daily_files: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        """Table and bucket."""
        return pool_table(self.upstream, self.entity).name, self.bucket

    @property
    def reads(self) -> tuple[str, ...]:
        """The files of the bucket of both."""
        return self.pool_files + self.daily_files


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketResult:
    """A staged bucket: `counts` is for the pool only, `spaces` are those of its vectors."""

    entity: Entity
    file: StagedFile
    rows_read: int
    spaces: tuple[str, ...]
    counts: MergeCounts


def dedup_bucket(task: DedupTask) -> BucketResult:
    """Write one bucket of daily.

    Raises:
        ContractViolation: a raw row is in the wrong bucket.
    """
    raw = read_files(task.raw_files, raw_table(task.upstream, task.entity))
    table = daily_table(task.upstream, task.entity)
    daily = dedup(raw, task.layout.dim, task.layout.dtype).cast(arrow_schema(table))
    check_bucket(daily["entity_id"], task.bucket, task.layout.buckets, table.name)
    file = stage_file(task.root, table, task.ds, daily, bucket=task.bucket)
    return BucketResult(
        entity=task.entity,
        file=file,
        rows_read=len(raw),
        spaces=_spaces(daily["space_id"]),
        counts=MergeCounts(),
    )


def merge_bucket(task: MergeTask) -> BucketResult:
    """Write one bucket of the pool.

    Raises:
        SpaceMismatch: pool and daily live in different spaces.
    """
    table = pool_table(task.upstream, task.entity)
    daily = read_files(task.daily_files, daily_table(task.upstream, task.entity))
    pool = read_parts(task.pool_files, table)
    total = MergeCounts()
    spaces: set[str] = set()

    def merged() -> Iterator[pa.Table]:
        nonlocal total
        for part, counts in merge_parts(pool, daily, task.ds, task.config, task.layout.dim):
            total += counts
            spaces.update(_spaces(part["space_id"]))
            yield part.cast(arrow_schema(table))

    file = stage_parts(task.root, table, task.ds, merged(), bucket=task.bucket)
    return BucketResult(
        entity=task.entity,
        file=file,
        rows_read=len(daily) + total.updated + total.carried + total.pruned,
        spaces=tuple(sorted(spaces)),
        counts=total,
    )


def check_bucket(ids: pa.ChunkedArray, bucket: int, buckets: int, table: str) -> None:
    """Check that every id belongs to its bucket.

    Raises:
        ContractViolation: one does not.
    """
    found = bucket_of(ids, buckets)
    strays = int(np.count_nonzero(found != bucket))
    if strays:
        raise ContractViolation(
            f"ids of {table} lie in the wrong bucket",
            where=f"bucket {bucket} of {buckets}",
            expected="stable_hash(entity_id) mod buckets",
            found=f"{strays} of {len(ids)} ids, in buckets {np.unique(found)[:5].tolist()}",
            hint="a table written with another bucket count: derm rebucket",
        )


def _spaces(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(pc.unique(column).to_pylist())
