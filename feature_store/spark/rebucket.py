"""Moving rows to other buckets: the one place where an embedding changes files.

`import_file` splits one file of rows that came without buckets (another team's table): it stages a
file per bucket, so a day's buckets hold as many files as were imported. `move_bucket` writes one
bucket of a new layout from those buckets of the old one that can hold its rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.tables import Table, raw_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.staging import StagedFile, read_parts, sort_rows, stage_file
from feature_store.lake.storage import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveTask:
    """One bucket of the new layout, and the files that may hold its rows.

    Attributes:
        target: name of the table that is being built.
    """

    root: Storage
    table: Table
    target: str
    ds: str
    bucket: int
    buckets: int
    files: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        """Table and bucket."""
        return f"{self.target}/{self.ds}", self.bucket

    @property
    def reads(self) -> tuple[str, ...]:
        """The files of the old layout."""
        return self.files


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportTask:
    """One file of raw rows without buckets; `number` is its place among the files."""

    root: Storage
    upstream: Upstream
    entity: Entity
    ds: str
    number: int
    buckets: int
    file: str

    @property
    def key(self) -> tuple[str, int]:
        """Source and number of the file."""
        return self.file, self.number

    @property
    def reads(self) -> tuple[str, ...]:
        """The file."""
        return (self.file,)


def sources(bucket: int, old: int, new: int) -> tuple[int, ...]:
    """Buckets of `old` that may hold ids of `bucket` of `new`: equal modulo their gcd."""
    shared = math.gcd(old, new)
    return tuple(b for b in range(old) if b % shared == bucket % shared)


def move_bucket(task: MoveTask) -> StagedFile:
    """Write one bucket of the new layout, ordered by key."""
    table = task.table.model_copy(update={"name": task.target})
    rows = pa.concat_tables([arrow_schema(table).empty_table(), *_rows_of(task)])
    return stage_file(task.root, table, task.ds, sort_rows(rows, table.key), bucket=task.bucket)


def import_file(task: ImportTask) -> list[StagedFile]:
    """Split one file into a staged file per bucket that has rows in it."""
    table = raw_table(task.upstream, task.entity)
    # Another team's file: there is nothing in its name to compare it with.
    rows = pq.read_table(task.file, schema=arrow_schema(table), partitioning=None)
    found = bucket_of(rows["entity_id"], task.buckets)
    return [
        stage_file(task.root, table, task.ds, rows.filter(pa.array(found == b)), bucket=b)
        for b in range(task.buckets)
    ]


def _rows_of(task: MoveTask) -> Iterator[pa.Table]:
    for part in read_parts(task.files, task.table):
        found = bucket_of(part[task.table.bucket_key], task.buckets)
        yield part.filter(pa.array(found == task.bucket))
