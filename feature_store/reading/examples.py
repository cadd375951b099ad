"""Training and inference examples: a day's events joined with the features of its snapshots.

The snapshot tables and yesterday's counts become arrays, one row per entity; events are read a
chunk at a time, and an event finds its entities by a sorted search over hashed ids. So memory is
bounded by the entity tables and one chunk, whatever the number of events or days.

Features are as of the start of the day, sequences included: two events of a user on one day see
the same sequence. A late label, which repeats an impression of an earlier day, finds its user and
its Pin as of the start of that day: nothing tells when it arrived but the day it is read on.

A row on which an upstream knows no label teaches it nothing, and is not read for it.

A batch maps names to arrays. Of every row, [rows, ...]: context features by their own name,
`surface` (int32) and `ts` (float64 UTC seconds) of the impression, `late` (bool: the row is no
impression, but a label of one), `key:user` and `key:pin` (hashed ids, int64), and `label:<name>`
(float32, NaN where the label does not apply). Of every distinct user and Pin of the batch as of a
day, [entities, ...]: its features by their own name; `row:user` and `row:pin` (int64 [rows]) say
which of them a row is about, so that a model embeds each one once.
"""

import datetime as dt
import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.buckets import stable_hash
from feature_store.lake.filing import day_numbers, filed_at, is_late, iso_day
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import arrow_schema
from feature_store.reading.counts import Counting
from feature_store.reading.encoding import codes, encode, floats
from feature_store.reading.entities import Arrays, EntityFeatures
from feature_store.reading.pools import PoolInput

_CHUNK_ROWS = 65_536
_MINUTE_US = 60_000_000
_DAY_MINUTES = 1440
_TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Which events of a day are read, and in which order.

    Attributes:
        batch_rows: rows of a batch; the last batch of a chunk may be shorter.
        chunk_rows: rows that are read and permuted together.
        seed: permutes each chunk; None keeps the order of the files.
        shard: (rank, ranks): this rank reads its contiguous share of the rows.
        minutes: only events that became known in these minutes of the day, [first, last).
        rows: impressions alone, or also the late labels that are filed under the day.
        random_pins: Pins of the day that go with every batch, drawn uniformly and with repetition:
            their features and `key:pin`, each behind `random:`.
        together: rows of a user in a chunk that a permutation leaves side by side, at most.
        distinct: False repeats an entity's features for each of its rows, and leaves `row:` out.
    """

    batch_rows: int
    chunk_rows: int = _CHUNK_ROWS
    seed: int | None = None
    shard: tuple[int, int] = (0, 1)
    minutes: tuple[int, int] = (0, _DAY_MINUTES)
    rows: Literal["all", "impressions"] = "all"
    random_pins: int = 0
    together: int = 1
    distinct: bool = True


class DayExamples:
    """The examples of one day.

    Args:
        known_by: a later day: impressions have the labels that were known at its end, those that
            arrived late in the place of the day's own. Without one, what the day itself knew.
        late_since: late labels of impressions before this day are not read.
    """

    def __init__(
        self,
        lake: Lake,
        spec: DatasetSpec,
        ds: str,
        upstream: Upstream,
        counting: Counting,
        pools: Sequence[PoolInput] = (),
        *,
        known_by: str = "",
        late_since: str = "",
    ) -> None:
        self.ds, self._known_by = ds, known_by
        self._late_from = _midnight(late_since) if late_since else None
        self._spec, self._lake = spec, lake
        self._labels = tuple(x.name for x in spec.labels_of(upstream))
        self._context = spec.features_of("context")
        self.entities: dict[Entity, EntityFeatures] = {
            entity: EntityFeatures(lake, spec, entity, ds, counting, pools) for entity in ENTITIES
        }
        self._recalled = False

    def batches(self, order: Order) -> Iterator[Arrays]:
        """The day's examples, batch by batch; the same every time for the same order.

        Raises:
            MissingInput: a late label is of an impression whose day is not in the lake.
        """
        if order.rows == "all" and not self._recalled:
            self._recall()
        for index, chunk in enumerate(self._chunks(order)):
            events, rows = self._encode(chunk)
            count = len(events["ts"])
            at = np.arange(count)
            if order.seed is not None:
                random = np.random.default_rng((order.seed, index))
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
        """The minute of the day before which half of the events became known."""
        counts = np.zeros(_DAY_MINUTES, np.int64)
        columns = ["ts", "arrived_at"]
        for batch in self._dataset().to_batches(columns=columns, batch_size=_CHUNK_ROWS):
            counts += np.bincount(minutes_of(batch), minlength=_DAY_MINUTES)
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
        events["surface"] = codes(chunk.column("surface"), self._spec.surfaces)
        events["ts"] = chunk.column("ts").cast(pa.int64()).to_numpy() / 1e6
        events["late"] = is_late(chunk).to_numpy(zero_copy_only=False)
        for name, column in self._labels_of(chunk).items():
            events[f"label:{name}"] = floats(column)
        rows: dict[Entity, npt.NDArray[np.int64]] = {}
        for entity in ENTITIES:
            hashes = stable_hash(chunk.column(f"{entity}_id"))
            events[f"key:{entity}"] = hashes.view(np.int64)
            rows[entity] = self.entities[entity].rows_of(hashes)
        self._find_earlier(chunk, events, rows)
        return events, rows

    def _labels_of(self, chunk: pa.RecordBatch) -> dict[str, pa.Array]:
        labels = {name: chunk.column(name) for name in self._labels}
        if not self._known_by:
            return labels
        later = self._later
        at = pc.index_in(chunk.column("event_id"), value_set=later["impression_id"])
        return {n: pc.coalesce(later[n].take(at), labels[n]) for n in labels}

    @functools.cached_property
    def _later(self) -> dict[str, pa.Array]:
        """The late labels of the day's impressions: each impression once, with all it was told."""
        events = self._spec.events_table()
        days = [d for d in self._lake.days(events.name) if self.ds < d <= self._known_by]
        start = _midnight(self.ds)
        end = pa.scalar(start.as_py() + dt.timedelta(days=1), _TIME)
        of_day = (pc.field("ts") >= start) & (pc.field("ts") < end)
        rows = self._lake.dataset(events, days).to_table(
            columns=["impression_id", *self._labels],
            filter=pc.field("arrived_at").is_valid() & of_day,
        )
        told = rows.group_by("impression_id").aggregate([(n, "max") for n in self._labels])
        names = [n.removesuffix("_max") if n != "impression_id" else n for n in told.column_names]
        return {n: c.combine_chunks() for n, c in zip(names, told.columns, strict=True)}

    def _find_earlier(
        self, chunk: pa.RecordBatch, events: Arrays, rows: dict[Entity, npt.NDArray[np.int64]]
    ) -> None:
        """Point late labels at their user and Pin as of the day of their impression."""
        at = np.flatnonzero(events["late"])
        days = day_numbers(chunk.column("ts"))[at]
        for day in np.unique(days).tolist():
            mine = at[days == day]
            for entity in ENTITIES:
                hashes = events[f"key:{entity}"][mine].view(np.uint64)
                rows[entity][mine] = self.entities[entity].rows_of(hashes, iso_day(day))

    def _recall(self) -> None:
        """Bring in the entities of late labels, as of the days of their impressions."""
        columns = ["ts", *(f"{entity}_id" for entity in ENTITIES)]
        late = pc.field("arrived_at").is_valid() & self._known()
        if self._late_from is not None:
            late &= pc.field("ts") >= self._late_from
        rows = self._dataset().to_table(columns=columns, filter=late)
        numbers = day_numbers(rows["ts"])
        of_day = {iso_day(n): pa.array(numbers == n) for n in np.unique(numbers).tolist()}
        for entity in ENTITIES:
            ids = rows[f"{entity}_id"].combine_chunks()
            self.entities[entity].recall({ds: ids.filter(x).unique() for ds, x in of_day.items()})
        self._recalled = True

    def _known(self) -> pc.Expression:
        """Whether the upstream knows any label of a row."""
        known = (pc.field(name).is_valid() for name in self._labels)
        return functools.reduce(operator.or_, known)

    def _chunks(self, order: Order) -> Iterator[pa.RecordBatch]:
        names = ("user_id", "pin_id", "ts", "arrived_at", "surface", *self._labels)
        columns = [*names, *(f.name for f in self._context)]
        if self._known_by:
            columns.append("event_id")
        for chunk in read_share(self._dataset(), columns, order.chunk_rows, order.shard):
            taught = functools.reduce(pc.or_, (pc.is_valid(chunk.column(n)) for n in self._labels))
            if order.rows == "impressions":
                taught = pc.and_not(taught, is_late(chunk))
            elif self._late_from is not None:
                in_time = pc.greater_equal(chunk.column("ts"), self._late_from)
                taught = pc.and_(taught, pc.or_(pc.invert(is_late(chunk)), in_time))
            if order.minutes != (0, _DAY_MINUTES):
                minute = minutes_of(chunk)
                inside = (minute >= order.minutes[0]) & (minute < order.minutes[1])
                taught = pc.and_(taught, pa.array(inside))
            yield chunk if taught.true_count == len(chunk) else chunk.filter(taught)

    def _dataset(self) -> pads.Dataset:
        return self._lake.dataset(self._spec.events_table(), [self.ds])


def permutation(
    users: npt.NDArray[np.int64], together: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """An order of rows in which up to `together` of a user follow each other."""
    if together == 1:
        return random.permutation(len(users))
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


def _midnight(ds: str) -> pa.Scalar:
    """The start of a day."""
    return pa.scalar(dt.datetime.fromisoformat(f"{ds}T00:00:00Z"), _TIME)


def minutes_of(rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """The minute of the day at which each row became known."""
    times = filed_at(rows).cast(pa.int64()).to_numpy()
    minutes: npt.NDArray[np.int64] = times // _MINUTE_US % _DAY_MINUTES
    return minutes
