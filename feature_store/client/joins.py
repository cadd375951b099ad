"""The point-in-time join: examples with the vectors that stood some days before they happened.

Examples come and go in batches. Within a batch those of one day are looked up together, each
distinct id once; no vector is held longer than the batch it belongs to.

Shapes: N rows of a batch, D vector width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import Entity, Upstream, shift_day
from feature_store.contracts.errors import ContractViolation, InputError, MissingInput
from feature_store.lake.filing import day_numbers, iso_day
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import one_array, vector_array
from feature_store.reading.lookup import PoolVectors

_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedPool:
    """A pool that examples are joined with."""

    upstream: Upstream
    entity: Entity
    vectors: PoolVectors
    days: tuple[str, ...]

    @property
    def fields(self) -> tuple[pa.Field, pa.Field]:
        """The two columns it becomes."""
        name = f"{self.upstream}_{self.entity}"
        vector = pa.list_(pa.float32(), self.vectors.dim)
        return pa.field(f"{name}_vector", vector), pa.field(f"{name}_found", pa.bool_())


class AsOfJoin:
    """Joins batches of examples with pools.

    Args:
        lag_days: how many days before an example its pool is.
        time: the column of an example's time.
        unknown_days: whether days before the first pool find nobody; else they are an error.
        size: bytes of the vectors of a batch, at most; one example at least.
    """

    def __init__(
        self,
        lake: Lake,
        pools: Sequence[tuple[Upstream, Entity]],
        *,
        lag_days: int,
        time: str,
        unknown_days: bool,
        size: int,
    ) -> None:
        self._pools = tuple(_joined_pool(lake, u, e) for u, e in pools)
        self._lag_days, self._time, self._unknown_days = lag_days, time, unknown_days
        self._rows = max(size // max(_FLOAT_BYTES * sum(p.vectors.dim for p in self._pools), 1), 1)
        # The space of each pool's vectors so far.
        self._spaces: dict[tuple[Upstream, Entity], str] = {}

    def schema(self, examples: pa.Schema) -> pa.Schema:
        """The columns of joined examples.

        Raises:
            InputError: a column is missing, of another type, or there twice.
        """
        for name in (self._time, *sorted({f"{p.entity}_id" for p in self._pools})):
            if name not in examples.names:
                raise InputError(
                    f"examples have no column {name}", found=" ".join(examples.names) or "none"
                )
        _check_time(examples.field(self._time))
        fields = [f for p in self._pools for f in p.fields]
        if twice := sorted({f.name for f in fields} & set(examples.names)):
            raise InputError(f"examples already have the columns {' '.join(twice)}")
        return pa.schema([*examples, *fields], examples.metadata)

    def batches(self, examples: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The examples in their order, with two columns for each pool."""
        schema = self.schema(examples.schema)
        for batch in _of_size(examples, self._rows):
            columns = [*batch.columns, *self._columns(batch)]
            yield pa.record_batch(columns, schema=schema)

    def _columns(self, batch: pa.RecordBatch) -> Iterator[pa.Array]:
        days_N = _days(batch.column(self._time), self._time)
        for pool in self._pools:
            ids = pc.cast(one_array(batch.column(f"{pool.entity}_id")), pa.string())
            vectors_ND = np.zeros((len(batch), pool.vectors.dim), np.float32)
            found_N = np.zeros(len(batch), np.bool_)
            for day in np.unique(days_N).tolist():
                rows = np.flatnonzero(days_N == day)
                if ds := self._day_of(pool, iso_day(day)):
                    of_day = ids if len(rows) == len(ids) else ids.take(pa.array(rows))
                    spaces = pool.vectors.find(ds, of_day, rows, vectors_ND, found_N)
                    self._check_space(pool, ds, spaces)
            yield vector_array(vectors_ND)
            yield pa.array(found_N)

    def _day_of(self, pool: JoinedPool, day: str) -> str:
        """The day whose pool the examples of a day are joined with; empty for none."""
        ds = shift_day(day, -self._lag_days)
        if ds in pool.days:
            return ds
        if self._unknown_days and ds < pool.days[0]:
            return ""
        raise MissingInput(
            f"examples of {day} need the pool of {ds}, which is not there",
            where=pool.vectors.table.name,
            found=f"{len(pool.days)} days, {pool.days[0]} to {pool.days[-1]}",
            hint="unknown_days=True lets examples before the first pool through, unfound",
        )

    def _check_space(self, pool: JoinedPool, ds: str, spaces: frozenset[str]) -> None:
        key = (pool.upstream, pool.entity)
        seen = spaces | ({self._spaces[key]} if key in self._spaces else set())
        if len(seen) > 1:
            raise ContractViolation(
                "the pools of these examples are of two embedding spaces",
                where=f"{pool.vectors.table.name}, by {ds}",
                expected="one space: vectors of two have nothing in common",
                found=" ".join(sorted(seen)),
                hint="join the examples of each space apart, and train on one of them",
            )
        self._spaces.update(dict.fromkeys([key], *seen) if seen else {})


def _of_size(examples: pa.RecordBatchReader, rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a size, the last one shorter: each reads its pools anew."""
    kept: list[pa.RecordBatch] = []
    for batch in examples:
        kept.append(batch)
        if sum(map(len, kept)) >= rows:
            *whole, rest = pa.Table.from_batches(kept).combine_chunks().to_batches(rows)
            yield from whole
            kept = [rest]
    yield from pa.Table.from_batches(kept, examples.schema).combine_chunks().to_batches(rows)


def _joined_pool(lake: Lake, upstream: Upstream, entity: Entity) -> JoinedPool:
    vectors = PoolVectors(lake, upstream, entity)
    days = lake.days(vectors.table.name)
    return JoinedPool(upstream=upstream, entity=entity, vectors=vectors, days=days)


def _check_time(field: pa.Field) -> None:
    zoned = pa.types.is_timestamp(field.type) and field.type.tz
    if not (zoned or pa.types.is_date(field.type) or pa.types.is_string(field.type)):
        raise InputError(
            f"column {field.name} says no day",
            expected="a timestamp with a zone, a date, or a day as text (YYYY-MM-DD)",
            found=str(field.type),
        )


def _days(column: pa.Array, name: str) -> npt.NDArray[np.int64]:
    """The UTC day of each row, in days since 1970-01-01.

    Raises:
        InputError: a row has no time, or a text that is no day.
    """
    if column.null_count:
        raise InputError(f"{column.null_count} examples have no {name}")
    try:
        if pa.types.is_string(column.type):
            column = pc.strptime(column, format="%Y-%m-%d", unit="s")
        # A timestamp is counted in UTC, whatever zone it is shown in.
        return day_numbers(column.cast(pa.timestamp("us", tz="UTC")))
    except pa.ArrowInvalid as error:
        raise InputError(f"column {name} holds no days", found=str(error)) from error
