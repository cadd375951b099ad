"""Counting a day: per row group of its events, then per bucket of the counts table.

`divide_events` counts one row group of events per user and per Pin, and writes what it found into
one scratch file per entity type with a batch for each bucket. `count_bucket` adds up what the row
groups found for its bucket, and moves the windows on by a day:

    window(d) = window(d - 1) + day(d) - day(d - length)

These are sums of whole numbers per id, and rows are ordered by id, so neither the row groups nor
the tasks that counted them leave a trace in the result. Like the other tasks, it imports neither
Delta nor settings.

Shapes: N entities, W windows, C counts (impressions first).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import ENTITIES, Entity
from feature_store.contracts.datasets import WINDOWS, DatasetSpec, counts_name
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.buckets import bucket_of
from feature_store.lake.filing import is_late
from feature_store.lake.schemas import arrow_schema, count_matrix
from feature_store.lake.staging import StagedFile, read_files, read_parts, stage_file
from feature_store.lake.storage import Storage

Counts = npt.NDArray[np.int32]
Found = tuple[pa.Array, Counts]  # distinct ids [n] and what was counted of them


@dataclass(frozen=True, kw_only=True, slots=True)
class DivideTask:
    """One row group of a day's events.

    Attributes:
        buckets: of the counts table of each entity type.
        folder: for the scratch files.
    """

    spec: DatasetSpec
    file: str
    group: int
    buckets: dict[Entity, int]
    folder: Path

    @property
    def key(self) -> tuple[str, int]:
        """File and row group."""
        return self.file, self.group

    @property
    def reads(self) -> tuple[str, ...]:
        """The file of the row group, whole."""
        return (self.file,)


@dataclass(frozen=True, kw_only=True, slots=True)
class CountTask:
    """One bucket of the counts of a day.

    Attributes:
        parts: scratch files with the counts of the day.
        past: files of the bucket of the day before.
        leaving: files of the bucket of the day that leaves each window but the first.
    """

    root: Storage
    spec: DatasetSpec
    entity: Entity
    ds: str
    bucket: int
    parts: tuple[str, ...]
    past: tuple[str, ...]
    leaving: tuple[tuple[str, ...], ...]

    @property
    def key(self) -> tuple[str, int]:
        """Table and bucket."""
        return counts_name(self.entity), self.bucket

    @property
    def reads(self) -> tuple[str, ...]:
        """What row groups found, and the files of earlier days."""
        return sum(self.leaving, self.parts + self.past)


def divide_events(task: DivideTask) -> dict[Entity, str]:
    """Count one row group; the scratch file of each entity type."""
    spec, labels = task.spec, task.spec.counted[1:]
    columns = ["arrived_at", *(f"{e}_id" for e in ENTITIES), *labels]
    (rows,) = read_parts([task.file], spec.events_table(), columns, group=task.group)
    hits = [pc.invert(is_late(rows)), *(pc.fill_null(pc.equal(rows[x], 1), False) for x in labels)]
    files: dict[Entity, str] = {}
    for entity in ENTITIES:
        encoded = rows[f"{entity}_id"].combine_chunks().dictionary_encode()
        of_row, ids = encoded.indices.to_numpy(), encoded.dictionary
        counts = [np.bincount(of_row[h.to_numpy()], minlength=len(ids)) for h in hits]
        path = task.folder / f"{entity}-{Path(task.file).stem}-{task.group}.arrow"
        _write_by_bucket(path, ids, np.stack(counts, axis=1), task.buckets[entity])
        files[entity] = str(path)
    return files


def count_bucket(task: CountTask) -> StagedFile:
    """Write one bucket of the counts of a day.

    Raises:
        ContractViolation: a window would hold fewer than none.
    """
    table = task.spec.counts_table(task.entity)
    number = len(task.spec.counted)
    schema = arrow_schema(table)
    today = [_read_batch(part, task.bucket) for part in task.parts]
    past = _found(read_files(task.past, table), number)
    of_one_day = schema.names[: 1 + number]
    leaving = [_found(read_files(files, table, of_one_day), number) for files in task.leaving]
    ids, windows_NWC = slide(today, past, leaving)
    if (windows_NWC < 0).any():
        raise ContractViolation(
            f"a window of {table.name} would hold fewer events than none",
            where=f"day {task.ds}, bucket {task.bucket}",
            expected="the day that leaves a window to be as it was when it was added",
            found=f"{int((windows_NWC < 0).any(axis=(1, 2)).sum())} entities with negative counts",
            hint="a day was counted again since: derm run --steps count, from that day on",
        )
    columns = windows_NWC.reshape(len(ids), len(WINDOWS) * number)
    data = pa.table([ids, *columns.T], schema=schema)
    return stage_file(task.root, table, task.ds, data, bucket=task.bucket)


def slide(today: Sequence[Found], past: Found, leaving: Sequence[Found]) -> Found:
    """The windows that end with a day.

    Args:
        today: counts [n, C] of the day, in parts; an id may be in several.
        past: windows [n, W, C] that ended the day before.
        leaving: for each window but the first, counts [n, 1, C] of the day that leaves it.

    Returns:
        Ids with an event in any window, ordered, and their windows [N, W, C].
    """
    found = [*today, past, *leaving]
    ids = pa.concat_arrays([i for i, _ in found]).unique()
    ids = ids.take(pc.sort_indices(ids))
    windows_NWC = np.zeros((len(ids), *past[1].shape[1:]), np.int32)

    def at(some: pa.Array) -> npt.NDArray[np.int32]:
        rows: npt.NDArray[np.int32] = pc.index_in(some, value_set=ids).to_numpy()
        return rows

    for some, counts in today:
        windows_NWC[at(some)] += counts[:, None, :]
    windows_NWC[at(past[0]), 1:] += past[1][:, 1:]
    for window, (some, counts) in enumerate(leaving, 1):
        windows_NWC[at(some), window] -= counts[:, 0]
    kept = windows_NWC.any(axis=(1, 2))
    return ids.filter(pa.array(kept)), windows_NWC[kept]


def _found(rows: pa.Table, number: int) -> Found:
    return rows["entity_id"].combine_chunks(), count_matrix(rows, number)


def _write_by_bucket(path: Path, ids: pa.Array, counts: npt.NDArray, buckets: int) -> None:
    """Write one batch per bucket, so that a reader finds its own by number."""
    bucket = bucket_of(ids, buckets)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    columns = [ids.take(pa.array(order)), *counts[order].astype(np.int32).T]
    names = ["entity_id", *map(str, range(counts.shape[1]))]
    batch = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=names)
    with pa.ipc.new_file(path, batch.schema) as writer:
        for first, last in pairwise(ends):
            writer.write_batch(batch.slice(first, last - first))


def _read_batch(path: str, bucket: int) -> Found:
    with pa.memory_map(path) as source:
        batch = pa.ipc.open_file(source).get_batch(bucket)
        return batch.column(0), count_matrix(batch, batch.num_columns - 1)[:, 0]
