"""Bring one slot of the online store to one day of the user pool, bucket by bucket, streaming.

When the slot holds an ancestor of the pool, only rows that changed since are written and only ids
that were pruned since are removed; otherwise the slot is wiped and written in full.
"""

import itertools
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import day_number
from feature_store.contracts.errors import ContractViolation, SpaceMismatch, StoreError
from feature_store.lake.schemas import unpack
from feature_store.lake.storage import open_parquet
from feature_store.online.codec import ValueFormat, slot_key
from feature_store.online.store import BucketDone, OnlineStore

_BATCH_ROWS = 2048
_SPOT_BUCKETS, _SPOT_ROWS = 4, 64
_DAY_S = 86_400
# Days begin and end when a publish happens to run: an expiry is known this well.
_EXPIRY_SLACK_S = 2 * _DAY_S
_BUCKET = re.compile(r"/bucket=(\d+)/")
_FEW_DISTINCT = ["last_daily", "last_active", "space_id"]
_COLUMNS = ["entity_id", "embedding", "last_daily", "last_active", "space_id"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotWrite:
    """What a publish does to a slot; the same for every bucket of it.

    Attributes:
        ds: the day of the pool that the slot is brought to.
        base_ds: the day it holds now; None writes every row.
        pool_dtype: NumPy dtype of the pool's packed vectors.
        expire_days: rows expire so many days after their last activity; 0 never.
        now: Unix seconds from which an expiry counts.
    """

    prefix: str
    ds: str
    base_ds: str | None
    space_id: str
    format: ValueFormat
    pool_dtype: str
    expire_days: int = 0
    now: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketFiles:
    """The Parquet files of one bucket of the pool, on the target day and on the slot's day."""

    bucket: int
    target: tuple[str, ...]
    base: tuple[str, ...] = ()


def files_by_bucket(files: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Files of a bucketed partition, by the bucket in their path.

    Raises:
        ContractViolation: a file lies in no bucket folder.
    """
    grouped: dict[int, list[str]] = defaultdict(list)
    for file in files:
        if not (match := _BUCKET.search(file)):
            raise ContractViolation(
                "a file of a bucketed table is in no bucket",
                where=file,
                expected="a folder bucket=N in its path",
            )
        grouped[int(match[1])].append(file)
    return {bucket: tuple(sorted(names)) for bucket, names in grouped.items()}


def write_bucket(
    store: OnlineStore,
    plan: SlotWrite,
    files: BucketFiles,
    progress: Callable[[int], None],
    stop: threading.Event,
) -> BucketDone:
    """Bring one bucket of a slot to the plan's day. Writing it twice changes nothing.

    Args:
        progress: told how many rows of the pool were looked at.
        stop: set when another bucket has failed.

    Raises:
        SpaceMismatch: the pool holds vectors of another space.
        StoreError: the store refused.
    """
    written = size = 0
    with store.writer(plan.prefix) as writer:
        for batch in _batches(files.target, _COLUMNS):
            rows = batch.num_rows
            ids, values, expire_at = _encode(plan, _changed(batch, plan))
            if len(ids):
                writer.write(ids, values, expire_at)
                written += len(ids)
                size += values.nbytes
            progress(rows)
            if stop.is_set():
                raise StoreError("another bucket of this slot failed", where=plan.prefix)
        gone = _gone(files)
        writer.remove(gone)
    return BucketDone(written=written, removed=len(gone), size=size)


def mismatches(
    store: OnlineStore, plan: SlotWrite, files: Sequence[str], limit: int, turn: int = 0
) -> tuple[int, int, int]:
    """Compare some rows of a bucket, changed or not, with the store, byte for byte.

    Args:
        limit: how many rows; they lie together.
        turn: which of them; successive numbers go through the whole bucket.

    Returns:
        Rows compared, missing, different. A row that is due to expire is not missing.
    """
    if (batch := _rows_together(files, limit, turn)) is None:
        return 0, 0, 0
    ids, values, expire_at = _encode(plan, batch)
    found = store.read(plan.prefix, ids.to_pylist())
    gone = np.array([value is None for value in found])
    if expire_at is not None:
        gone &= expire_at > plan.now + _EXPIRY_SLACK_S
    pairs = zip(found, values, strict=True)
    different = sum(v is not None and v != expected.tobytes() for v, expected in pairs)
    return len(found), int(gone.sum()), different


def spot_check(store: OnlineStore, plan: SlotWrite, buckets: Sequence[BucketFiles]) -> None:
    """Read a few rows back before anyone relies on them.

    Raises:
        StoreError: a row is missing or different. The slot's state is deleted, so that the next
            publish writes it in full.
    """
    for files in buckets[:_SPOT_BUCKETS]:
        compared, missing, different = mismatches(store, plan, files.target, _SPOT_ROWS)
        if missing or different:
            store.delete(slot_key(plan.prefix))
            raise StoreError(
                "the online store does not hold what was written to it",
                where=f"{store.location} {plan.prefix}*",
                expected=f"{compared} equal values",
                found=f"{missing} missing, {different} different",
                hint="is a maxmemory-policy evicting keys? Set noeviction; then run the step "
                "again: it writes the slot in full",
            )


def space_of(files: Sequence[str]) -> str | None:
    """The space of the first row of a partition; None when it is empty."""
    for batch in _batches(files, ["space_id"], rows=1):
        return str(batch.column("space_id")[0].as_py())
    return None


def _gone(files: BucketFiles) -> pa.Array:
    """The ids of the slot's day that the target day no longer has."""
    before = ids_of(files.base)
    if len(before) == 0:
        return before
    return before.filter(pc.invert(pc.is_in(before, ids_of(files.target))))


def ids_of(files: Sequence[str]) -> pa.Array:
    """Every entity id of some files, in file order."""
    chunks = []
    for file in files:
        with open_parquet(file) as parquet:
            chunks += parquet.read(["entity_id"])[0].chunks
    return pa.concat_arrays([pa.array([], pa.string()), *chunks])


def _batches(
    files: Sequence[str], columns: list[str], rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    for file in files:
        with open_parquet(file, read_dictionary=_FEW_DISTINCT) as parquet:
            for batch in parquet.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                if batch.num_rows:
                    yield batch


def _rows_together(files: Sequence[str], rows: int, turn: int) -> pa.RecordBatch | None:
    """The `turn`-th piece of at most so many rows; it begins again after the last one."""
    pieces = []
    for file in files:
        with open_parquet(file) as parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        pieces += [(file, g, at) for g, n in enumerate(sizes) for at in range(-(-n // rows))]
    if not pieces:
        return None
    file, group, at = pieces[turn % len(pieces)]
    with open_parquet(file, read_dictionary=_FEW_DISTINCT) as parquet:
        batches = parquet.iter_batches(
            batch_size=rows, row_groups=[group], columns=_COLUMNS, use_threads=False
        )
        return next(itertools.islice(batches, at, None))


def _changed(batch: pa.RecordBatch, plan: SlotWrite) -> pa.RecordBatch:
    """The rows that differ from what the slot holds."""
    if plan.base_ds is None:
        return batch
    newer = pc.greater(batch.column("last_daily"), plan.base_ds)
    if plan.expire_days:
        # An active entity lives on although its vector stays: its expiry moves.
        newer = pc.or_(newer, pc.greater(batch.column("last_active"), plan.base_ds))
    return batch.filter(newer)


def _encode(
    plan: SlotWrite, batch: pa.RecordBatch
) -> tuple[pa.Array, npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]:
    """Ids, values and expiry of rows, checked against the plan's space."""
    spaces = pc.unique(batch.column("space_id")).to_pylist()
    if any(space != plan.space_id for space in spaces):
        raise SpaceMismatch(
            "a pool holds vectors of several spaces",
            where=f"{plan.prefix} {plan.ds}",
            expected=plan.space_id,
            found=" ".join(map(str, spaces)),
            hint="start a new pool for the new space; never publish both under one prefix",
        )
    vectors = unpack(batch.column("embedding"), plan.format.dim, plan.pool_dtype)
    days = _day_numbers(batch.column("last_daily"))
    values = plan.format.encode(vectors, days.astype(np.uint16))
    if not plan.expire_days:
        return batch.column("entity_id"), values, None
    idle = day_number(plan.ds) - _day_numbers(batch.column("last_active"))
    left = np.maximum(plan.expire_days + 1 - idle, 1)
    return batch.column("entity_id"), values, plan.now + left * _DAY_S


def _day_numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    """Days since 1970-01-01 of ISO dates; few distinct ones, so each is parsed once."""
    numbers = np.array([day_number(ds) for ds in column.dictionary.to_pylist()], np.int64)
    return numbers[column.indices.to_numpy()] if len(column) else numbers[:0]
