"""Where an id's row is: a shard's ids, ascending by their mixed bits, and where each bucket begins.

Mixed ids are spread evenly, so a bucket holds a handful: a look-up compares all ids of its bucket,
which costs the same few array operations whatever the size of the table.
Shapes: R ids of a shard, n ids asked for, K window (ids of the fullest bucket).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import ContractViolation, DamagedFile
from feature_store.contracts.hashing import mix64

# Nobody's id: it stands where a forgotten one was.
NOBODY = np.iinfo(np.int64).min
DEFAULT_ROW = 0
_PER_BUCKET = 4
_WINDOW = 32
_SPARSE = 16
_BLOCK = 8192
_CHECKED = 1 << 20


def shard_of(ids: npt.NDArray[np.int64], shards: int) -> npt.NDArray[np.int64]:
    """The shard [n] of each id."""
    return (mix64(ids) % np.uint64(shards)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Directory:
    """The ids of one shard of a table.

    Attributes:
        ids: [R], ascending by `mix64`.
        starts: [2^bucket_bits + 1], the first id of each bucket.
        window: ids of the fullest bucket.
    """

    ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.uint32]
    bucket_bits: int
    window: int

    @classmethod
    def of(cls, ids: npt.NDArray[np.int64], where: str) -> "Directory":
        """A directory of ids that are ascending by `mix64`.

        Raises:
            ContractViolation: there are too many, or they crowd (real ids do not).
        """
        if len(ids) >= 2**32 - 1:
            raise ContractViolation(
                "a shard has too many rows", where=where, found=str(len(ids)), hint="more shards"
            )
        mixed, bits = mix64(ids), max(1, (len(ids) // _PER_BUCKET).bit_length())
        while True:
            starts = _starts(mixed, bits)
            window = int(np.diff(starts).max())
            if window <= _WINDOW:
                return cls(ids, starts.astype("<u4"), bits, max(window, 1))
            if 1 << bits > _SPARSE * len(ids):
                raise ContractViolation(
                    "too many ids of a shard begin with the same bits",
                    where=where,
                    expected=f"at most {_WINDOW} of one bucket",
                    found=str(window),
                    hint="were these ids made to collide?",
                )
            bits += 1

    def rows_of(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row [n] of each id: place + 1, or the default row where it is not known."""
        if len(ids) <= _BLOCK:
            return self._rows_of(ids)
        rows = np.empty(len(ids), np.int64)
        for start in range(0, len(ids), _BLOCK):
            rows[start : start + _BLOCK] = self._rows_of(ids[start : start + _BLOCK])
        return rows

    def check(self, shard: int, shards: int, where: str) -> None:
        """Look whether every id is in its place.

        Raises:
            DamagedFile: one is of another shard, out of order, twice, or in another's bucket.
        """
        starts = self.starts.astype(np.int64)
        edges = len(starts) == (1 << self.bucket_bits) + 1 and starts[0] == 0
        if not edges or starts[-1] != len(self.ids) or np.diff(starts).max() > self.window:
            raise _wrong("the buckets of a shard do not hold its ids", where)
        if np.diff(starts).min() < 0:
            raise _wrong("the buckets of a shard are out of order", where)
        before = -1
        for first in range(0, len(self.ids), _CHECKED):
            ids = self.ids[first : first + _CHECKED]
            at = first + np.flatnonzero(ids != NOBODY)
            mixed = mix64(self.ids[at])
            if len(strays := at[mixed % np.uint64(shards) != shard]):
                raise _wrong(
                    "an id lies in another shard than its own",
                    f"{where}, offset {strays[0] * 8}",
                    expected=f"mix64(id) mod {shards} = {shard}",
                    found=f"{len(strays)} others: was it written for another number of shards?",
                )
            if len(at) and (int(mixed[0]) <= before or (mixed[1:] <= mixed[:-1]).any()):
                raise _wrong("the ids of a shard are out of order, or one is there twice", where)
            bucket = (mixed >> np.uint64(64 - self.bucket_bits)).astype(np.int64)
            if ((at < starts[bucket]) | (at >= starts[bucket + 1])).any():
                raise _wrong("an id lies in another bucket than its own", where)
            before = int(mixed[-1]) if len(at) else before

    def _rows_of(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        rows = np.full(len(ids), DEFAULT_ROW)
        if not len(self.ids):
            return rows
        bucket = (mix64(ids) >> np.uint64(64 - self.bucket_bits)).astype(np.int64)
        place_nK = self.starts[bucket].astype(np.int64)[:, None] + np.arange(self.window)
        np.minimum(place_nK, len(self.ids) - 1, out=place_nK)
        found, at = np.nonzero(self.ids[place_nK] == ids[:, None])
        rows[found] = place_nK[found, at] + 1
        rows[ids == NOBODY] = DEFAULT_ROW
        return rows


def _starts(mixed: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.int64]:
    counts = np.bincount((mixed >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
    return np.concatenate([[0], np.cumsum(counts)])


def _wrong(what: str, where: str, *, expected: str = "", found: str = "") -> DamagedFile:
    return DamagedFile(
        what, where=where, expected=expected, found=found, hint="write the version again"
    )
