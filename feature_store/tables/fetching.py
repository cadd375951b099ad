"""What a ranker does to get rows: no socket, no clock.

One request becomes one frame for each shard and table, with each id once; answers come in any
order. Rows that do not come in time are default rows, of the same version, and counted. Rows of
another version than the one asked for are an error: nothing is ever mixed.
Shapes: N ids of a request, n distinct ids of one shard, D values of a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import InputError, StoreError
from feature_store.tables.directory import shard_of
from feature_store.tables.rowwise import RowFormat
from feature_store.tables.wire import (
    BrokenFrame,
    Code,
    Frame,
    Kind,
    LookupBody,
    RefusalBody,
    RowsBody,
)


@dataclass(frozen=True, slots=True)
class ServedTable:
    """One table as rankers see it.

    Attributes:
        default: [1, W], the packed default row.
    """

    name: str
    form: RowFormat
    default: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One version as rankers see it."""

    version: str
    shards: int
    revision: int
    tables: dict[str, ServedTable]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> "ServedVersion":
        """What a shard says when it is asked to describe a version.

        Raises:
            BrokenFrame: it says something else.
        """
        try:
            tables = {}
            for entry in answer["tables"]:
                form = RowFormat(bits=entry["bits"], dim=entry["dim"])
                default = np.frombuffer(bytes.fromhex(entry["default"]), np.uint8)
                tables[entry["name"]] = ServedTable(
                    entry["name"], form, default.reshape(1, form.row_bytes)
                )
            return cls(answer["version"], answer["shards"], answer["revision"], tables)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenFrame(
                "a shard describes a version in another way", found=str(error)
            ) from error


@dataclass(slots=True)
class Fetched:
    """The rows of one request, all of one version.

    Attributes:
        values: by table, [N, D] in the order of the ids.
        known: by table, [N]: whether the table has the id; False too where no answer came.
        defaulted: distinct ids that have the default row because no answer came in time.
    """

    version: str
    values: dict[str, npt.NDArray[np.float32]]
    known: dict[str, npt.NDArray[np.bool_]]
    defaulted: int = 0


@dataclass(slots=True)
class _Part:
    """What is asked of one shard.

    Attributes:
        places: [n] among the distinct ids of the table.
    """

    shard: int
    table: str
    places: npt.NDArray[np.int64]


@dataclass(slots=True)
class _Wanted:
    """One table of a request: its distinct ids' packed rows, and where each id's is."""

    inverse: npt.NDArray[np.int64]
    packed: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]


@dataclass(slots=True)
class FetchCounts:
    """What has happened to the requests of a client so far."""

    requests: int = 0
    ids: int = 0
    distinct: int = 0
    defaulted: int = 0
    timeouts: int = 0
    overloads: int = 0
    lost: int = 0
    versions_missing: int = 0
    flips: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Fetch:
    """One request under way.

    Args:
        served: the version that all rows must be of.
        ids: by table, int64 [N]; repeated ids are asked for once.
        first: the first of the numbers that its frames may use.

    Raises:
        InputError: the version has no such table.
    """

    served: ServedVersion
    ids: Mapping[str, npt.NDArray[np.int64]]
    first: int
    counts: FetchCounts
    frames: list[Frame] = field(default_factory=list)
    waiting: dict[int, _Part] = field(default_factory=dict)
    error: StoreError | None = None
    _wanted: dict[str, _Wanted] = field(default_factory=dict)
    _defaulted: int = 0

    def __post_init__(self) -> None:
        self.counts.requests += 1
        for name, ids in self.ids.items():
            table = self.served.tables.get(name)
            if table is None:
                raise InputError(
                    f"version {self.served.version} has no table {name}",
                    found=" ".join(self.served.tables),
                )
            distinct, inverse = _distinct(np.asarray(ids, np.int64))
            self.counts.ids += len(inverse)
            self.counts.distinct += len(distinct)
            # Whatever does not come is the default row already.
            packed = np.repeat(table.default, len(distinct), axis=0)
            self._wanted[name] = _Wanted(inverse, packed, np.zeros(len(distinct), np.bool_))
            self._split(name, distinct)

    @property
    def done(self) -> bool:
        """Whether nothing more is waited for."""
        return not self.waiting or self.error is not None

    def receive(self, frame: Frame) -> None:
        """Take an answer in. One that nobody waits for (late, or twice) changes nothing."""
        part = self.waiting.pop(frame.request, None)
        if part is None:
            return
        where = f"shard {part.shard}, version {self.served.version}, table {part.table}"
        if frame.kind is Kind.ERROR:
            refusal = RefusalBody.parse(frame.body)
            if refusal.code is Code.OVERLOAD:
                self.counts.overloads += 1
                self._defaulted += len(part.places)
                return
            self.counts.versions_missing += refusal.code is Code.VERSION_MISSING
            self.error = refusal.as_error(where)
            return
        rows = RowsBody.parse(frame.body)
        expected = (self.served.version, part.table, self.served.tables[part.table].form)
        found = (rows.version, rows.table, rows.form)
        if found != expected or len(rows.packed) != len(part.places):
            self.error = StoreError(
                "a shard answered with other rows than it was asked for",
                where=where,
                expected=f"{len(part.places)} rows of {expected}",
                found=f"{len(rows.packed)} of {found}",
                hint="a request is of one version; nothing was used. Is something between the "
                "ranker and its shards?",
            )
            return
        self.counts.bytes += len(frame.body)
        wanted = self._wanted[part.table]
        wanted.packed[part.places] = rows.packed
        wanted.known[part.places] = rows.known

    def lose(self, shard: int | None = None) -> int:
        """Wait no longer, for one shard or at all: those rows are default rows; how many parts."""
        lost = [n for n, p in self.waiting.items() if shard is None or p.shard == shard]
        for number in lost:
            self._defaulted += len(self.waiting.pop(number).places)
        return len(lost)

    def result(self) -> Fetched:
        """The rows.

        Raises:
            VersionMissing: a shard does not hold the version.
            StoreError: a shard refused, or answered with rows of something else.
        """
        if self.error is not None:
            raise self.error
        self.counts.defaulted += self._defaulted
        values, known = {}, {}
        for name, wanted in self._wanted.items():
            form = self.served.tables[name].form
            values[name] = form.decode(wanted.packed)[wanted.inverse]
            known[name] = wanted.known[wanted.inverse]
        return Fetched(self.served.version, values, known, self._defaulted)

    def _split(self, name: str, distinct: npt.NDArray[np.int64]) -> None:
        """A frame for each shard that has some of the ids."""
        shard_n = shard_of(distinct, self.served.shards)
        for shard in range(self.served.shards):
            places = np.flatnonzero(shard_n == shard)
            if not len(places):
                continue
            number = (self.first + len(self.waiting)) % 2**32
            self.waiting[number] = _Part(shard, name, places)
            body = LookupBody(self.served.version, name, distinct[places]).pack()
            self.frames.append(Frame(Kind.LOOKUP, shard, number, body))


def _distinct(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids without repeats, ascending, and where each is: `np.unique`, made for few of them."""
    ordered = np.sort(ids)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    distinct = ordered[first]
    return distinct, distinct.searchsorted(ids)
