"""A day of pairs: who did what with which Pin, and how much it weighs, over some days.

An event that is a positive is a pair of its user and its Pin; what is told of it later is one more
pair, on the day it is told. No features are read. A chunk of events is in memory at a time, and the
ids of the day's users and Pins.

A batch has, of every pair [Q]: `key:user` and `key:pin` (hashed ids, int64), `pair:user` (the
same as `key:user`), `weight` (float32), `drawn:key:pin` (a Pin of the day, drawn uniformly); and of
Pins drawn for the pool [N]: `random:key:pin`.

Shapes: Q pairs, N drawn Pins, C events of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import ENTITIES, Entity
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.sequences import PairInputs
from feature_store.lake.buckets import stable_hash
from feature_store.lake.filing import is_late
from feature_store.lake.lake import Lake
from feature_store.reading.entities import Arrays, Rows, read_entities
from feature_store.reading.examples import Order, minutes_of, read_share

_DAY_MINUTES = 1440


class KnownIds:
    """The users or the Pins of a day, by their hashed ids alone."""

    embeds_unknown = False

    def __init__(self, lake: Lake, spec: DatasetSpec, entity: Entity, ds: str) -> None:
        self._entity = entity
        self._lookup, _ = read_entities(lake, spec, entity, ds, ())
        self._key_N = np.empty(len(self._lookup), np.int64)
        self._key_N[self._lookup.order] = self._lookup.ascending.view(np.int64)

    def __len__(self) -> int:
        return len(self._lookup)

    def rows_of(self, hashes: npt.NDArray[np.uint64], ds: str = "") -> Rows:  # noqa: ARG002
        """The row of each hashed id."""
        return self._lookup.rows_of(hashes)

    def take(self, rows: Rows) -> Arrays:
        """The hashed ids of chosen rows."""
        return {f"key:{self._entity}": self._key_N[rows]}

    def draw(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Keys of entities of the day, each as likely as the others."""
        at = random.integers(0, max(len(self), 1), count if len(self) else 0)
        return self._key_N[at]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairDays:
    """Where the pairs of a day are.

    Attributes:
        days: that a training reads, the day itself last; scoring reads the day alone.
    """

    lake: Lake
    spec: DatasetSpec
    inputs: PairInputs
    days: tuple[str, ...]


class DayPairs:
    """The pairs of one day, and of those that are looked back on."""

    def __init__(self, source: PairDays) -> None:
        self._source, self.ds = source, source.days[-1]
        self._pins = KnownIds(source.lake, source.spec, "pin", self.ds)
        self.entities: dict[Entity, KnownIds] = {
            "user": KnownIds(source.lake, source.spec, "user", self.ds),
            "pin": self._pins,
        }

    def batches(self, order: Order) -> Iterator[Arrays]:
        """Pairs, batch by batch; the same every time for the same order.

        In training, where the order has a seed, days are read in any order, and the pairs of a
        chunk are permuted; a part of the day is of the day alone.
        """
        days = np.array(self._source.days if self._looks_back(order) else [self.ds])
        seed = order.seed or 0
        if order.seed is not None:
            days = np.random.default_rng(seed).permutation(days)
        for number, ds in enumerate(days.tolist()):
            for index, pairs in enumerate(self._chunks(ds, order)):
                random = np.random.default_rng((seed, number, index, *order.shard))
                count = len(pairs["weight"])
                at = np.arange(count) if order.seed is None else random.permutation(count)
                for start in range(0, count, order.batch_rows):
                    some = at[start : start + order.batch_rows]
                    yield self._batch({k: v[some] for k, v in pairs.items()}, order, random)

    def empty(self) -> Arrays:
        """A batch of no rows, with every name and type that a real one may have."""
        nobody = np.empty(0, np.int64)
        pairs: Arrays = {f"key:{e}": nobody for e in ENTITIES}
        pairs["weight"] = np.empty(0, np.float32)
        order = Order(batch_rows=1, random_pins=1)
        batch = self._batch(pairs, order, np.random.default_rng(0))
        return {name: x[:0] for name, x in batch.items()}

    def middle_minute(self) -> int:
        """The minute of the day before which half of its pairs became known."""
        counts = np.zeros(_DAY_MINUTES, np.int64)
        for chunk, weight_C in self._read(self.ds, Order(batch_rows=1)):
            counts += np.bincount(minutes_of(chunk)[weight_C > 0], minlength=_DAY_MINUTES)
        return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2) + 1)

    def _looks_back(self, order: Order) -> bool:
        return order.seed is not None and order.minutes == (0, _DAY_MINUTES)

    def _batch(self, pairs: Arrays, order: Order, random: np.random.Generator) -> Arrays:
        drawn = {"drawn:key:pin": self._drawn(len(pairs["weight"]), random)}
        if order.random_pins:
            drawn["random:key:pin"] = self._pins.draw(order.random_pins, random)
        return {**pairs, "pair:user": pairs["key:user"], **drawn}

    def _drawn(self, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """A Pin for every pair; where a day has none, the Pin 0, which nobody has."""
        found = self._pins.draw(count, random)
        return found if len(found) == count else np.zeros(count, np.int64)

    def _chunks(self, ds: str, order: Order) -> Iterator[Arrays]:
        for chunk, weight_C in self._read(ds, order):
            positive = weight_C > 0
            if order.minutes != (0, _DAY_MINUTES):
                minute_C = minutes_of(chunk)
                positive &= (minute_C >= order.minutes[0]) & (minute_C < order.minutes[1])
            kept = chunk.filter(pa.array(positive))
            pairs: Arrays = {
                f"key:{e}": stable_hash(kept.column(f"{e}_id")).view(np.int64) for e in ENTITIES
            }
            yield {**pairs, "weight": weight_C[positive]}

    def _read(
        self, ds: str, order: Order
    ) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.float32]]]:
        """The events of a day in chunks, and what each of them weighs; 0 where it is no pair."""
        inputs, source = self._source.inputs, self._source
        columns = ["user_id", "pin_id", "ts", "arrived_at", "action", *inputs.labels]
        dataset = source.lake.dataset(source.spec.events_table(), [ds])
        for chunk in read_share(dataset, columns, order.chunk_rows, order.shard):
            weight_C = np.zeros(len(chunk), np.float32)
            for label, weight in inputs.labels.items():
                weight_C += weight * _true(pc.equal(chunk.column(label), 1))
            shown = pc.invert(is_late(chunk))
            for action, weight in inputs.actions.items():
                weight_C += weight * _true(pc.and_(shown, pc.equal(chunk.column("action"), action)))
            yield chunk, weight_C


def _true(column: pa.Array) -> npt.NDArray[np.float32]:
    """1 where a column is true, 0 where it is false or null."""
    found: npt.NDArray[np.float32] = (
        pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.float32)
    )
    return found
