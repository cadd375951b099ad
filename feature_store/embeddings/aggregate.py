"""From raw to daily, and from yesterday's pool and today's daily to today's pool: the arithmetic.

Works on one bucket at a time. Vectors stay packed: they are seen as float32 arrays [rows, dim],
gathered once, and updated in place. Nothing here knows Spark, files or tables.

Source: DERM, appendix C (dedup, ACC, MA, AP, carry-over, prune).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.config import AggregationConfig
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import ContractViolation, SpaceMismatch
from feature_store.contracts.tables import pool_table
from feature_store.lake.schemas import arrow_schema, pack, unpack

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

# Rows updated at a time: their operands stay in the cache of a core.
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeCounts:
    """What became of the entities of a pool: `carried` were not seen today, `pruned` dropped."""

    updated: int = 0
    new: int = 0
    carried: int = 0
    pruned: int = 0

    def __add__(self, other: "MergeCounts") -> "MergeCounts":
        return MergeCounts(
            updated=self.updated + other.updated,
            new=self.new + other.new,
            carried=self.carried + other.carried,
            pruned=self.pruned + other.pruned,
        )


def dedup(raw: pa.Table, dim: int, dtype: str = "float32") -> pa.Table:
    """Keep the last embedding of the day per entity, by (ts, event_id).

    Args:
        raw: one bucket of a raw table, in any order.
        dtype: of the packed vectors in `raw`.

    Returns:
        The bucket of the daily table, ordered by entity_id, vectors in float32. `intraday_cosine`
        compares the first and the last embedding of the day, and is null for a single row.
    """
    order = _time_order(raw)
    ids = raw["entity_id"].combine_chunks().take(pa.array(order))
    bounds = _group_bounds(ids)
    firsts, lasts = bounds[:-1], bounds[1:] - 1
    vectors = unpack(raw["embedding"], dim, np.dtype(dtype).newbyteorder("<").str)
    last = np.take(vectors, order[lasts], axis=0).astype(np.float32, copy=False)
    repeated = lasts > firsts
    kept = pa.array(order[lasts])
    columns = {
        "entity_id": ids.take(pa.array(lasts)),
        "ts": raw["ts"].take(kept),
        "embedding": pack(last),
        "events": pa.array((lasts - firsts + 1).astype(np.int32)),
        "intraday_cosine": _cosine_where(repeated, vectors, order[firsts], last),
        "snapshot_id": raw["snapshot_id"].take(kept),
        "space_id": raw["space_id"].take(kept),
    }
    return pa.table(columns)


def merge(
    pool: pa.Table, daily: pa.Table, ds: str, config: AggregationConfig, dim: int
) -> tuple[pa.Table, MergeCounts]:
    """Merge a day into the pool: update, insert, carry over, prune.

    Args:
        pool: one bucket of yesterday's pool, ordered by entity_id, or no rows.
        daily: the same bucket of the day, ordered by entity_id. Its entities are the active ones.
        ds: the day.

    Returns:
        The bucket of the day's pool, ordered by entity_id, and what happened to its entities.

    Raises:
        SpaceMismatch: the vectors do not all live in one space.
    """
    check_one_space(pool["space_id"], daily["space_id"])
    pool_ids, daily_ids = pool["entity_id"].combine_chunks(), daily["entity_id"].combine_chunks()
    match = _positions(pc.index_in(pool_ids, value_set=daily_ids))  # pool row -> daily row, or -1
    cutoff = shift_day(ds, -config.inactive_days)
    kept = (match >= 0) | ~_mask(pc.less(pool["last_active"], cutoff))
    is_new = np.ones(len(daily), bool)
    is_new[match[match >= 0]] = False
    plan = _interleave(pool_ids, np.flatnonzero(kept), daily_ids, np.flatnonzero(is_new))
    # Row of today's pool -> row of the day, -1 where the entity was not seen.
    today = np.where(plan.from_pool, match[plan.pool_row] if len(match) else -1, plan.daily_row)
    result = _gather(pool, daily, plan, today, ds, config, dim)
    updated = int(np.count_nonzero(match >= 0))
    counts = MergeCounts(
        updated=updated,
        new=int(np.count_nonzero(is_new)),
        carried=int(np.count_nonzero(kept)) - updated,
        pruned=len(pool) - int(np.count_nonzero(kept)),
    )
    return result, counts


def merge_parts(
    parts: Iterable[pa.Table], daily: pa.Table, ds: str, config: AggregationConfig, dim: int
) -> Iterator[tuple[pa.Table, MergeCounts]]:
    """`merge`, with a pool that arrives part by part in the order of its ids.

    Only one part is in memory at a time, and small parts stay in the cache of a core.

    Raises:
        ContractViolation: the ids of pool or day do not ascend.
        SpaceMismatch: the vectors do not all live in one space.
    """
    ids = daily["entity_id"].combine_chunks()
    _check_ascending(ids, "")
    start, last = 0, ""
    for part in parts:
        if len(part) == 0:
            continue
        keys = part["entity_id"].combine_chunks()
        _check_ascending(keys, last)
        last = keys[-1].as_py()
        stop = pc.search_sorted(ids, pa.scalar(last), side="right").as_py()
        yield merge(part, daily.slice(start, stop - start), ds, config, dim)
        start = stop
    pool = arrow_schema(pool_table("ctr", "user")).empty_table()
    yield merge(pool, daily.slice(start), ds, config, dim)


def check_one_space(*columns: pa.ChunkedArray) -> None:
    """Refuse vectors of more than one embedding space.

    Raises:
        SpaceMismatch: it names the spaces.
    """
    spaces = sorted({value for column in columns for value in pc.unique(column).to_pylist()})
    if len(spaces) > 1:
        raise SpaceMismatch(
            "vectors of different embedding spaces were about to be averaged",
            expected="one space; a from-scratch training starts a new pool",
            found=" and ".join(spaces),
            hint="fill a pool of the new space by back inference, and publish it side by side",
        )


def combine(
    past: Vectors, daily: Vectors, previous: Vectors | None, config: AggregationConfig
) -> Vectors:
    """One step of the heuristic for entities that were seen before; all arrays [rows, dim].

    Args:
        past: the pool's vectors; they are overwritten with the result under `ma`.
        previous: the dailies before this one, under `ap` and only there.
    """
    if previous is not None:
        return (previous + daily) * np.float32(0.5)
    if config.heuristic == "acc":
        return daily
    w = np.float32(config.w)
    past *= w
    past += daily * (np.float32(1) - w)
    return past


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Where each row of today's pool comes from; all arrays [rows of today's pool].

    Attributes:
        from_pool: whether the entity was in yesterday's pool.
        pool_row: its row there; 0 where it was not.
        daily_row: for an entity that was not, its row of the day; -1 elsewhere.
    """

    from_pool: npt.NDArray[np.bool_]
    pool_row: Positions
    daily_row: Positions


def _interleave(pool_ids: pa.Array, kept: Positions, daily_ids: pa.Array, new: Positions) -> _Plan:
    """Merge two sorted id lists: the pool's rows that are kept, and the day's that are new."""
    rows = len(kept) + len(new)
    kept_ids = pool_ids if len(kept) == len(pool_ids) else pool_ids.take(pa.array(kept))
    before = pc.search_sorted(kept_ids, daily_ids.take(pa.array(new)))
    targets = before.to_numpy(zero_copy_only=False).astype(np.int64) + np.arange(len(new))
    from_pool = np.ones(rows, bool)
    from_pool[targets] = False
    pool_row = np.zeros(rows, np.int64)
    pool_row[from_pool] = kept
    daily_row = np.full(rows, -1)
    daily_row[targets] = new
    return _Plan(from_pool=from_pool, pool_row=pool_row, daily_row=daily_row)


def _gather(
    pool: pa.Table,
    daily: pa.Table,
    plan: _Plan,
    today: Positions,
    ds: str,
    config: AggregationConfig,
    dim: int,
) -> pa.Table:
    """The rows of today's pool."""
    seen, rows = today >= 0, len(today)
    embedding, previous = _vectors(pool, daily, plan, today, config, dim)
    # One extra row stands for everything that the day itself decides.
    beyond = np.where(seen, len(pool), plan.pool_row)
    counted = np.append(pool["updates"].to_numpy(), np.int32(0))
    updates = counted[np.where(plan.from_pool, plan.pool_row, len(pool))] + seen
    ids = pa.concat_arrays([*pool["entity_id"].chunks, *daily["entity_id"].chunks])
    sources = np.where(plan.from_pool, plan.pool_row, len(pool) + plan.daily_row)
    spaces = [*pool["space_id"].slice(0, 1).to_pylist(), *daily["space_id"].slice(0, 1).to_pylist()]
    columns = {
        "entity_id": ids.take(pa.array(sources)),
        "embedding": embedding,
        "last_daily": _day_column(pool["last_daily"], ds).take(pa.array(beyond)),
        "last_active": _day_column(pool["last_active"], ds).take(pa.array(beyond)),
        "updates": pa.array(updates.astype(np.int32)),
        "previous_daily": previous,
        "space_id": pa.repeat(pa.scalar(spaces[0] if spaces else "", pa.string()), rows),
    }
    return pa.table(columns)


def _vectors(
    pool: pa.Table,
    daily: pa.Table,
    plan: _Plan,
    today: Positions,
    config: AggregationConfig,
    dim: int,
) -> tuple[pa.Array, pa.Array]:
    """The embedding and previous_daily columns: carried rows are copied once, then updated."""
    day = unpack(daily["embedding"], dim)
    state = _carry(unpack(pool["embedding"], dim), day, plan)
    updated = np.flatnonzero(plan.from_pool & (today >= 0))
    if config.heuristic == "ap":
        previous = _carry(unpack(pool["previous_daily"], dim), day, plan)
    else:
        previous = None
    step = max(1, _BLOCK_BYTES // (4 * dim))
    for start in range(0, len(updated), step):
        rows = updated[start : start + step]
        new = day[today[rows]]
        old = None if previous is None else previous[rows]
        state[rows] = combine(state[rows], new, old, config)
        if previous is not None:
            previous[rows] = new
    empty = pa.nulls(len(today), pa.binary())
    return pack(state), empty if previous is None else pack(previous)


def _carry(pool: Vectors, day: Vectors, plan: _Plan) -> Vectors:
    """Yesterday's vectors in today's order, new entities with their daily: [rows, dim]."""
    out = np.empty((len(plan.pool_row), day.shape[1]), np.float32)
    if len(pool):
        np.take(pool, plan.pool_row, axis=0, out=out, mode="clip")
    inserted = ~plan.from_pool
    out[inserted] = day[plan.daily_row[inserted]]
    return out


def _check_ascending(ids: pa.Array, after: str) -> None:
    """Refuse ids that repeat or go back: positions would be found by bisection in vain."""
    if len(ids) == 0:
        return
    descents = pc.sum(pc.greater_equal(ids.slice(0, len(ids) - 1), ids.slice(1))).as_py() or 0
    if descents or (after and ids[0].as_py() <= after):
        raise ContractViolation(
            "the ids of an embedding file do not ascend",
            where="column entity_id",
            expected="each id once, in the order of its bytes",
            found=f"{descents or 1} ids that are not greater than the one before",
            hint="run the step that wrote the file again, with --force",
        )


def _day_column(column: pa.ChunkedArray, ds: str) -> pa.Array:
    return pa.concat_arrays([*column.chunks, pa.array([ds], pa.string())])


def _time_order(raw: pa.Table) -> Positions:
    """The rows ordered by (entity_id, ts, event_id); ids are compared once per distinct id."""
    encoded = raw["entity_id"].combine_chunks().dictionary_encode()
    rank = np.empty(len(encoded.dictionary), np.int32)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(rank), dtype=np.int32)
    keys = pa.table(
        {
            "entity": rank[encoded.indices.to_numpy()],
            "ts": raw["ts"],
            "event_id": raw["event_id"],
        }
    )
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return np.asarray(order.to_numpy(), np.int64)


def _group_bounds(ids: pa.Array) -> Positions:
    """Where each run of equal ids begins, and the end of the last one."""
    if len(ids) == 0:
        return np.zeros(1, np.int64)
    changed = _mask(pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)))
    return np.flatnonzero(np.concatenate(([True], changed, [True])))


def _cosine_where(
    chosen: npt.NDArray[np.bool_], vectors: npt.NDArray, firsts: Positions, last: Vectors
) -> pa.Array:
    """Cosine of first and last embedding for the chosen entities, null for the others."""
    values = np.zeros(len(chosen), np.float32)
    first = np.take(vectors, firsts[chosen], axis=0).astype(np.float32, copy=False)
    values[chosen] = cosine(first, last[chosen])
    return pa.array(values, mask=~chosen)


def cosine(a: Vectors, b: Vectors) -> Vectors:
    """Row-wise cosine [rows] of two arrays [rows, dim]; 0 where a vector is zero."""
    dot = np.einsum("nd,nd->n", a, b)
    norms = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    result: Vectors = np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)
    return result


def _positions(indices: pa.Array) -> Positions:
    return np.asarray(indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _mask(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)
