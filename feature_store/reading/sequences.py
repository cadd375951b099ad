"""A day of sequences: timelines that end with it, the content of its Pins, training pairs.

Users are read a bucket at a time; what is held in memory is one bucket's timelines and the content
of the day's Pins. Content is looked up by the Pin, once for each distinct one of a batch, and never
joined into actions.

A batch has, of every sequence [U]: `key:user` (hashed id), `length`; of every action of the
sequences, oldest first, one sequence after another [R]: `ts` (float64 seconds), `action`,
`surface` (1 + position in the declaration), `duration_s` (NaN where unknown), `element` (which of
the distinct Pins); of every distinct Pin [P]: `key:pin`, `content`. For training and scoring also,
of every pair [Q]: `row` (an element), `target` (a distinct Pin), `weight`, `pair:user`, and
`negative` (a distinct Pin, drawn uniformly); and of Pins drawn for the pool [N]: `random:key:pin`,
`random:content`.

Shapes: U sequences, R elements, P distinct Pins, Q pairs, N drawn Pins, C width of the content.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Entity, days_between
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.sequences import SequenceInputs
from feature_store.lake.lake import Lake
from feature_store.reading.actions import SCHEMA, Actions, Columns, actions
from feature_store.reading.entities import Arrays, Lookup, Rows, read_entities
from feature_store.reading.examples import Order
from feature_store.reading.pairs import DAY_US, Ints, OldestFirst, sample
from feature_store.reading.timelines import newest_first

_EPOCH = "1970-01-01"
_MINUTE_US = 60_000_000
_DAY_MINUTES = 1440
_KINDS = {field.name: field.type.to_pandas_dtype() for field in SCHEMA}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the timelines of a day are.

    Attributes:
        history: the days that are read, oldest first, the day itself last.
        scratch: a folder of one's own, until it is left; with room for 48 bytes per action.
        buckets: into which the lake divides users.
    """

    lake: Lake
    spec: DatasetSpec
    history: tuple[str, ...]
    scratch: Callable[[], AbstractContextManager[Path]]
    buckets: int

    @property
    def ds(self) -> str:
        """The day."""
        return self.history[-1]


class PinContent:
    """The content of the Pins of a day: rows 0 .. N - 1, and N of one that is not among them."""

    embeds_unknown = False

    def __init__(self, lake: Lake, spec: DatasetSpec, content: Feature, ds: str) -> None:
        self._name = content.name
        self._lookup, found = read_entities(lake, spec, "pin", ds, (content,))
        nothing = np.zeros((1, content.dim), np.float32)
        self.vectors = np.concatenate([*(part[content.name] for part in found), nothing])

    def __len__(self) -> int:
        return len(self._lookup)

    def rows_of(self, hashes: npt.NDArray[np.uint64], ds: str = "") -> Rows:  # noqa: ARG002
        """The row of each hashed id."""
        return self._lookup.rows_of(hashes)

    def take(self, rows: Rows) -> Arrays:
        """The content of chosen rows."""
        return {"content": self.vectors[rows]}

    def hashes(self, at: Rows) -> npt.NDArray[np.uint64]:
        """The hashed ids of the Pins at some places of their ascending order."""
        return self._lookup.ascending[at]

    def draw(self, count: int, random: np.random.Generator) -> tuple[Rows, Rows]:
        """The keys and the rows of Pins of the day, each as likely as the others."""
        at = random.integers(0, max(len(self), 1), count if len(self) else 0)
        return self._lookup.ascending[at].view(np.int64), self._lookup.order[at]


class UserSequences:
    """The newest actions of users at the end of a day, a bucket of them at a time."""

    embeds_unknown = False

    def __init__(self, day: "DaySequences") -> None:
        self._day = day
        self._bucket, self._acts, self._lookup = -1, _nobody(), Lookup(np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self._lookup)

    def rows_of(self, hashes: npt.NDArray[np.uint64], ds: str = "") -> Rows:  # noqa: ARG002
        """The row of each hashed id, valid until users of another bucket are asked for.

        Raises:
            ValueError: the users are of several buckets.
        """
        buckets = np.unique(hashes % np.uint64(self._day.buckets))
        if len(buckets) > 1:
            raise ValueError(f"expected users of one bucket, found {len(buckets)}")
        if len(buckets) and buckets[0] != self._bucket:
            self._bucket = int(buckets[0])
            self._acts = self._day.bucket(self._bucket)
            self._lookup = Lookup(self._acts.timelines.user_U)
        return self._lookup.rows_of(hashes)

    def take(self, rows: Rows) -> Arrays:
        """The sequences of chosen rows."""
        last_S = self._acts.offsets[1:][rows] - 1
        first_S = np.maximum(last_S - self._day.inputs.max_len + 1, self._acts.offsets[rows])
        return self._day.elements(self._acts, rows, (first_S, last_S))


class DaySequences:
    """The sequences of one day."""

    def __init__(self, source: Source, inputs: SequenceInputs) -> None:
        self.ds, self.inputs, self.buckets = source.ds, inputs, source.buckets
        self.pins = PinContent(source.lake, source.spec, self.inputs.content, source.ds)
        self.entities: dict[Entity, PinContent | UserSequences] = {
            "user": UserSequences(self),
            "pin": self.pins,
        }
        self._source = source
        self._start_us = (len(days_between(_EPOCH, source.ds)) - 1) * DAY_US
        self._divided: Actions | None = None

    def batches(self, order: Order) -> Iterator[Arrays]:
        """The day's pairs, batch by batch; the same every time for the same order.

        Raises:
            MissingInput: a day of the history is not in the lake.
        """
        seed = (order.seed or 0, *order.shard)
        buckets = np.array(self._actions().buckets_of(order.shard), np.int64)
        shuffled = np.random.default_rng(seed).permutation(buckets)
        for bucket in buckets if order.seed is None else shuffled:
            random = np.random.default_rng((*seed, 1 + int(bucket)))
            acts = self.bucket(int(bucket))
            users = np.arange(len(acts.timelines))
            for some in _parts(random.permutation(users), order.batch_rows):
                batch = self._pairs(acts.take(np.sort(some)), order, random)
                if len(batch["row"]):
                    yield batch

    def empty(self) -> Arrays:
        """A batch of no rows, with every name and type that a real one may have."""
        order = Order(batch_rows=1, random_pins=1)
        found = self._pairs(_nobody(), order, np.random.default_rng(0))
        return found | {name: x[:0] for name, x in found.items() if name.startswith("random:")}

    def middle_minute(self) -> int:
        """The minute of the day before which half of its targets happened."""
        counts = np.zeros(_DAY_MINUTES, np.int64)
        for bucket in range(self.buckets):
            acts = self.bucket(bucket)
            times = acts.ts_A[self._targets(acts, (0, _DAY_MINUTES))] - self._start_us
            counts += np.bincount(times // _MINUTE_US, minlength=_DAY_MINUTES)
        return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2) + 1)

    def bucket(self, bucket: int) -> OldestFirst:
        """The timelines of one bucket of users, up to the end of the day."""
        columns = self._actions().columns(bucket)
        read = np.isin(columns["action"], self.inputs.read)
        kept: Columns = {name: column[read] for name, column in columns.items()}
        return OldestFirst.of(newest_first(kept, self.inputs.max_timeline))

    def elements(self, acts: OldestFirst, user_S: Ints, ends: tuple[Ints, Ints]) -> Arrays:
        """The actions of sequences, and the content of their Pins."""
        batch, _ = self._looked_up(acts, user_S, ends, np.empty(0, np.int64))
        return batch

    def _pairs(self, acts: OldestFirst, order: Order, random: np.random.Generator) -> Arrays:
        pairs = sample(
            acts,
            self._targets(acts, order.minutes),
            self.inputs.sampling,
            max_len=self.inputs.max_len,
            random=random,
        )
        drawn_Q = random.integers(0, max(len(self.pins), 1), len(pairs.target_Q))
        ends = (pairs.first_S, pairs.last_S)
        batch, start_S = self._looked_up(acts, pairs.user_S, ends, pairs.target_Q, drawn_Q)
        batch |= {
            "row": start_S[pairs.sequence_Q] + pairs.row_Q - pairs.first_S[pairs.sequence_Q],
            "weight": pairs.weight_Q,
            "pair:user": batch["key:user"][pairs.sequence_Q],
        }
        if order.random_pins:
            key, rows = self.pins.draw(order.random_pins, random)
            batch |= {"random:key:pin": key, "random:content": self.pins.vectors[rows]}
        return batch

    def _looked_up(
        self,
        acts: OldestFirst,
        user_S: Ints,
        ends: tuple[Ints, Ints],
        target_Q: Ints,
        negative_Q: Ints | None = None,
    ) -> tuple[Arrays, Ints]:
        """Elements and distinct Pins of a batch; and where each sequence begins."""
        first_S, last_S = ends
        length_S = last_S - first_S + 1
        start_S = np.cumsum(length_S) - length_S
        at_R = np.arange(length_S.sum()) + np.repeat(first_S - start_S, length_S)
        told, pins = acts.timelines, self.pins
        hashes = np.concatenate([told.pin_A[at_R], told.pin_A[target_Q]])
        if negative_Q is not None:
            hashes = np.concatenate([hashes, pins.hashes(negative_Q)])
        pin_P, which = np.unique(hashes, return_inverse=True)
        element_R, target, negative = np.split(which, [len(at_R), len(at_R) + len(target_Q)])
        batch: Arrays = {
            "key:user": told.user_U[user_S].view(np.int64),
            "length": length_S,
            "ts": told.ts_A[at_R] / 1e6,
            "action": told.action_A[at_R],
            "surface": told.surface_A[at_R],
            "duration_s": told.duration_s_A[at_R],
            "element": element_R,
            "key:pin": pin_P.view(np.int64),
            "content": pins.vectors[pins.rows_of(pin_P)],
        }
        if negative_Q is not None:
            batch |= {"target": target, "negative": negative}
        return batch, start_S

    def _targets(self, acts: OldestFirst, minutes: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The positives of these minutes of the day."""
        first, last = (self._start_us + minute * _MINUTE_US for minute in minutes)
        positive_A = np.isin(acts.timelines.action_A, self.inputs.positive)
        return positive_A & (acts.ts_A >= first) & (acts.ts_A < last)

    def _actions(self) -> Actions:
        """The actions of the history, divided by user; their files go with this object."""
        if self._divided is None:
            source, stack = self._source, ExitStack()
            weakref.finalize(self, stack.close)
            scratch = stack.enter_context(source.scratch())
            self._divided = stack.enter_context(
                actions(source.lake, source.spec, source.history, scratch, buckets=self.buckets)
            )
        return self._divided


def _nobody() -> OldestFirst:
    columns = {name: np.empty(0, kind) for name, kind in _KINDS.items()}
    return OldestFirst.of(newest_first(columns, 1))


def _parts(users: Ints, size: int) -> Iterator[Ints]:
    for start in range(0, len(users), size):
        yield users[start : start + size]
