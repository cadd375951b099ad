"""Training and inference examples: a day's events joined with the features of its snapshots.

The snapshot tables and yesterday's counts become arrays, one row per entity; events are read a
chunk at a time, and an event finds its entities by a sorted search over hashed ids. So memory is
bounded by the entity tables and one chunk, whatever the number of events or days.

Features are as of the start of the day, sequences included: two events of a user on one day see
the same sequence.

A batch maps names to arrays. Of every event, [rows, ...]: context features by their own name,
`surface` (int32) and `ts` (float64 UTC seconds), `key:user` and `key:pin` (hashed ids, int64), and
`label:<name>` (float32, NaN where the label does not apply). Of every distinct entity of the batch,
[entities, ...]: its features by their own name; `row:user` and `row:pin` (int64 [rows]) say which
of them an event is about, so that a model embeds each one once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import arrow_schema, unpack
from feature_store.reading.counts import Counting, EntityCounts

Arrays = dict[str, npt.NDArray]

_CHUNK_ROWS = 65_536
_MINUTE_US = 60_000_000
_DAY_MINUTES = 1440


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Which events of a day are read, and in which order.

    Attributes:
        batch_rows: rows of a batch; the last batch of a chunk may be shorter.
        chunk_rows: rows that are read and permuted together.
        seed: permutes each chunk; None keeps the order of the files.
        shard: (rank, ranks): this rank reads its contiguous share of the rows.
        minutes: only events of these minutes of the day, [first, last).
        random_pins: Pins of the day that go with every batch, drawn uniformly and with repetition:
            their features and `key:pin`, each behind `random:`.
        together: events of a user in a chunk that a permutation leaves side by side, at most.
        distinct: False repeats an entity's features for each of its events, and leaves `row:` out.
    """

    batch_rows: int
    chunk_rows: int = _CHUNK_ROWS
    seed: int | None = None
    shard: tuple[int, int] = (0, 1)
    minutes: tuple[int, int] = (0, _DAY_MINUTES)
    random_pins: int = 0
    together: int = 1
    distinct: bool = True


class EntityFeatures:
    """One entity type as arrays. The row after the last one stands for an unknown entity.

    Attributes:
        arrays: feature -> [entities + 1, ...].
    """

    def __init__(
        self, lake: Lake, spec: DatasetSpec, entity: Entity, ds: str, counting: Counting
    ) -> None:
        table = spec.users_table() if entity == "user" else spec.pins_table()
        features, (key,) = spec.features_of(entity), table.key
        columns = [key, *(f.name for f in features)]
        hashes, parts = [], []
        for batch in lake.dataset(table, [ds]).to_batches(columns=columns, batch_size=_CHUNK_ROWS):
            hashes.append(stable_hash(batch.column(key)))
            parts.append({f.name: encode(f, batch.column(f.name)) for f in features})
        parts.append({f.name: encode(f, _missing(f)) for f in features})
        self.arrays = {f.name: np.concatenate([p[f.name] for p in parts]) for f in features}
        hashed = np.concatenate([*hashes, np.empty(0, np.uint64)])
        self._order = np.argsort(hashed, kind="stable")
        self._sorted = hashed[self._order]
        if len(hashed) and (same := int((self._sorted[1:] == self._sorted[:-1]).sum())):
            raise ContractViolation(
                f"table {table.name} names an entity twice",
                where=f"{lake.path(table.name)} day {ds} column {key}",
                expected="one row per entity",
                found=f"{same} repeated ids",
                hint=f"derm validate --ds {ds}",
            )
        self._counts = EntityCounts(lake, spec, entity, ds, counting, self)

    def __len__(self) -> int:
        return len(self._order)

    def rows_of(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The row of each hashed id; the row after the last one where it is unknown."""
        if not len(self):
            return np.zeros(len(hashes), np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], len(self))

    def take(self, rows: npt.NDArray[np.int64]) -> Arrays:
        """The features of chosen rows."""
        return {name: array[rows] for name, array in self.arrays.items()} | self._counts.take(rows)

    def draw(self, count: int, random: np.random.Generator) -> tuple[npt.NDArray[np.int64], Arrays]:
        """The keys and the features of entities, each as likely as the others."""
        at = random.integers(0, max(len(self), 1), count if len(self) else 0)
        return self._sorted[at].view(np.int64), self.take(self._order[at])


class DayExamples:
    """The examples of one day."""

    def __init__(
        self, lake: Lake, spec: DatasetSpec, ds: str, upstream: Upstream, counting: Counting
    ) -> None:
        self.ds = ds
        self._spec, self._lake = spec, lake
        self._labels = tuple(x.name for x in spec.labels_of(upstream))
        self._context = spec.features_of("context")
        self.entities: dict[Entity, EntityFeatures] = {
            entity: EntityFeatures(lake, spec, entity, ds, counting) for entity in ENTITIES
        }

    def batches(self, order: Order) -> Iterator[Arrays]:
        """The day's examples, batch by batch; the same every time for the same order."""
        for index, chunk in enumerate(self._chunks(order)):
            events, rows = self._encode(chunk)
            count = len(events["ts"])
            at = np.arange(count)
            if order.seed is not None:
                random = np.random.default_rng((order.seed, index))
                at = random.permutation(count)
                if order.together > 1:
                    at = permutation(rows["user"], order.together, random)
            for start in range(0, count, order.batch_rows):
                some = at[start : start + order.batch_rows]
                batch = self._batch(events, rows, some, distinct=order.distinct)
                if order.random_pins:
                    seed = (order.seed or 0, index, start, 1 + order.shard[0])
                    batch |= self._random_pins(order.random_pins, np.random.default_rng(seed))
                yield batch

    def empty(self) -> Arrays:
        """A batch of no rows, with every name and type that a real one may have."""
        schema = arrow_schema(self._spec.events_table())
        events, rows = self._encode(pa.RecordBatch.from_pylist([], schema))
        no_pins = self._random_pins(0, np.random.default_rng(0))
        return self._batch(events, rows, np.arange(0)) | no_pins

    def middle_minute(self) -> int:
        """The minute of the day before which half of the events lie."""
        counts = np.zeros(_DAY_MINUTES, np.int64)
        for batch in self._dataset().to_batches(columns=["ts"], batch_size=_CHUNK_ROWS):
            counts += np.bincount(_minutes(batch.column("ts")), minlength=_DAY_MINUTES)
        return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2) + 1)

    def _batch(
        self,
        events: Arrays,
        rows: dict[Entity, npt.NDArray[np.int64]],
        at: npt.NDArray[np.int64],
        *,
        distinct: bool = True,
    ) -> Arrays:
        batch = {name: array[at] for name, array in events.items()}
        for entity, found in rows.items():
            chosen = found[at]
            if distinct:
                chosen, batch[f"row:{entity}"] = np.unique(chosen, return_inverse=True)
            batch.update(self.entities[entity].take(chosen))
        return batch

    def _random_pins(self, count: int, random: np.random.Generator) -> Arrays:
        key, pins = self.entities["pin"].draw(count, random)
        return {f"random:{name}": array for name, array in {"key:pin": key, **pins}.items()}

    def _encode(self, chunk: pa.RecordBatch) -> tuple[Arrays, dict[Entity, npt.NDArray[np.int64]]]:
        events: Arrays = {f.name: encode(f, chunk.column(f.name)) for f in self._context}
        events["surface"] = _code(chunk.column("surface"), self._spec.surfaces)
        events["ts"] = chunk.column("ts").cast(pa.int64()).to_numpy() / 1e6
        for name in self._labels:
            events[f"label:{name}"] = floats(chunk.column(name))
        rows: dict[Entity, npt.NDArray[np.int64]] = {}
        for entity in ENTITIES:
            hashes = stable_hash(chunk.column(f"{entity}_id"))
            events[f"key:{entity}"] = hashes.view(np.int64)
            rows[entity] = self.entities[entity].rows_of(hashes)
        return events, rows

    def _chunks(self, order: Order) -> Iterator[pa.RecordBatch]:
        names = ("user_id", "pin_id", "ts", "surface", *self._labels)
        columns = [*names, *(f.name for f in self._context)]
        for chunk in read_share(self._dataset(), columns, order.chunk_rows, order.shard):
            if order.minutes == (0, _DAY_MINUTES):
                yield chunk
            else:
                minute = _minutes(chunk.column("ts"))
                inside = (minute >= order.minutes[0]) & (minute < order.minutes[1])
                yield chunk.filter(pa.array(inside))

    def _dataset(self) -> pads.Dataset:
        return self._lake.dataset(self._spec.events_table(), [self.ds])


def permutation(
    users: npt.NDArray[np.int64], together: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """An order of events in which up to `together` of a user follow each other."""
    order = np.argsort(users, kind="stable")
    _, sizes = np.unique(users, return_counts=True)
    place = np.arange(len(users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    run = np.cumsum(place % together == 0) - 1
    drawn = random.permutation(run[-1] + 1 if len(run) else 0)
    return order[np.argsort(drawn[run], kind="stable")]


def read_share(
    dataset: pads.Dataset, columns: list[str], chunk_rows: int, shard: tuple[int, int] = (0, 1)
) -> Iterator[pa.RecordBatch]:
    """A contiguous share of a dataset's rows; row groups outside of it are not read."""
    groups = [g for f in dataset.get_fragments() for g in f.split_by_row_group()]
    sizes = [g.row_groups[0].num_rows for g in groups]
    rank, ranks = shard
    first, last = rank * sum(sizes) // ranks, (rank + 1) * sum(sizes) // ranks
    start = 0
    for group, size in zip(groups, sizes, strict=True):
        low, high = max(first - start, 0), min(last - start, size)
        start += size
        if low >= high:
            continue
        position = 0
        batches = group.to_batches(dataset.schema, columns=columns, batch_size=chunk_rows)
        for batch in batches:
            lo, hi = max(low - position, 0), min(high - position, len(batch))
            position += len(batch)
            if lo < hi:
                yield batch.slice(lo, hi - lo)


def encode(feature: Feature, column: pa.Array) -> npt.NDArray:
    """A feature column as an array.

    Returns:
        categorical: int32 [n], 0 where missing; numeric: float32 [n], NaN where missing; list and
        sequence: int32 [n, max_len], padded with 0, sequences newest first; embedding: float32
        [n, dim].
    """
    if feature.kind == "numeric":
        return floats(column)
    if feature.kind == "categorical":
        return hashed_ids(column, feature.cardinality)
    if feature.kind == "embedding":
        return unpack(column, feature.dim).astype(np.float32)
    ids = hashed_ids(column.values, feature.cardinality)
    offsets = column.offsets.to_numpy().astype(np.int64)
    step = np.arange(feature.max_len)
    if feature.kind == "sequence":
        at = offsets[1:, None] - 1 - step
        inside = at >= offsets[:-1, None]
    else:
        at = offsets[:-1, None] + step
        inside = at < offsets[1:, None]
    if not len(ids):
        return np.zeros(at.shape, np.int32)
    return np.where(inside, ids[np.clip(at, 0, len(ids) - 1)], np.int32(0))


def hashed_ids(values: pa.Array, cardinality: int) -> npt.NDArray[np.int32]:
    """1 + hash mod (cardinality - 1) of each string [n]; 0 where it is null."""
    encoded = values.dictionary_encode()
    slots = 1 + stable_hash(encoded.dictionary) % np.uint64(cardinality - 1)
    slots_or_missing = np.append(slots, 0).astype(np.int32)
    indices = encoded.indices.fill_null(len(slots)).to_numpy(zero_copy_only=False)
    found: npt.NDArray[np.int32] = slots_or_missing[indices]
    return found


def _code(column: pa.Array, values: tuple[str, ...]) -> npt.NDArray[np.int32]:
    """1 + position of each string in a closed set of values; 0 for any other."""
    found = pc.index_in(column, pa.array(values, pa.string()))
    codes: npt.NDArray[np.int32] = found.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes + np.int32(1)


def floats(column: pa.Array) -> npt.NDArray[np.float32]:
    """A column as float32 [n], NaN where it is null."""
    values = column.cast(pa.float32()).fill_null(np.nan)
    floats: npt.NDArray[np.float32] = values.to_numpy(zero_copy_only=False)
    return floats.copy()


def _minutes(ts: pa.Array) -> npt.NDArray[np.int64]:
    minutes: npt.NDArray[np.int64] = ts.cast(pa.int64()).to_numpy() // _MINUTE_US % _DAY_MINUTES
    return minutes


def _missing(feature: Feature) -> pa.Array:
    """One value that says nothing, as a column."""
    if feature.kind == "embedding":
        return pa.array([bytes(4 * feature.dim)], pa.binary())
    if feature.kind in ("list", "sequence"):
        return pa.array([[]], pa.list_(pa.string()))
    return pa.array([None], pa.float32() if feature.kind == "numeric" else pa.string())
