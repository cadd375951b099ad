"""The vectors of chosen entities in one day's pool, found bucket by bucket.

Only the buckets that hold one of them are read, one at a time: memory is bounded by the answer and
one bucket.

Shapes: N ids asked for, R rows of a bucket, D vector width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.tables import Table, pool_table
from feature_store.embeddings.halves import to_single
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import arrow_schema, one_array, unpack
from feature_store.lake.staging import read_files

_COLUMNS = ("entity_id", "embedding", "space_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVectors:
    """What a pool knows of N ids.

    Attributes:
        vectors_ND: float32, zeros where not found.
        found_N: bool.
        spaces: the embedding spaces of the vectors that were found.
    """

    vectors_ND: npt.NDArray[np.float32]
    found_N: npt.NDArray[np.bool_]
    spaces: frozenset[str]


class PoolVectors:
    """The pool of one upstream and entity type, in all of its days.

    Args:
        lake: the lake it is in.

    Raises:
        MissingInput: there is no such pool.
    """

    def __init__(self, lake: Lake, upstream: Upstream, entity: Entity) -> None:
        self._lake = lake
        self.table: Table = pool_table(upstream, entity)
        properties = lake.properties(self.table.name)
        self.dim, self.buckets = int(properties["dim"]), int(properties["buckets"])
        self._dtype = np.dtype(properties["dtype"]).newbyteorder("<")

    def find(self, ds: str, ids: pa.Array) -> FoundVectors:
        """The vectors of distinct ids at the end of a day.

        Args:
            ids: string array [N] without nulls.

        Raises:
            MissingInput: the day is not there, or a file of it is gone.
        """
        vectors_ND = np.zeros((len(ids), self.dim), np.float32)
        found_N = np.zeros(len(ids), np.bool_)
        spaces: set[str] = set()
        files = self._lake.bucket_files(self.table.name, ds)
        for bucket, mine in _by_bucket(ids, self.buckets):
            rows = read_files(files[bucket], self.table, _COLUMNS)
            stored = one_array(rows["entity_id"])
            at = pc.index_in(ids.take(pa.array(mine)), value_set=stored)
            known = at.is_valid().to_numpy(zero_copy_only=False)
            at_R = at.drop_null().to_numpy()
            vectors_ND[mine[known]] = self.floats(rows["embedding"])[at_R]
            found_N[mine[known]] = True
            spaces.update(pc.unique(rows["space_id"].take(pa.array(at_R))).to_pylist())
        return FoundVectors(vectors_ND=vectors_ND, found_N=found_N, spaces=frozenset(spaces))

    def files(
        self, ds: str, ids: pa.Array | None = None
    ) -> Iterator[tuple[tuple[str, ...], pa.Array | None]]:
        """The files of each bucket at the end of a day, with the ids that may be in them.

        Args:
            ids: distinct strings [N] without nulls; None: every bucket, for whomever.

        Raises:
            MissingInput: the day is not there.
        """
        files = self._lake.bucket_files(self.table.name, ds)
        if ids is None:
            yield from ((of_bucket, None) for _, of_bucket in sorted(files.items()))
            return
        for bucket, mine in _by_bucket(ids, self.buckets):
            yield files[bucket], ids.take(pa.array(mine))

    def floats(self, column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float32]:
        """Packed vectors as float32 [R, D]; a view of the column where it holds such already."""
        packed = unpack(column, self.dim, self._dtype.str)
        return to_single(packed) if packed.dtype == np.float16 else packed

    def no_rows(self) -> pa.Table:
        """No rows of the pool, with their columns and types."""
        return arrow_schema(self.table).empty_table()


def _by_bucket(ids: pa.Array, buckets: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The positions of ids [N] by the bucket that they belong to."""
    bucket_N = bucket_of(ids, buckets)
    order = np.argsort(bucket_N, kind="stable")
    there, starts = np.unique(bucket_N[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    for bucket, start, end in zip(there.tolist(), starts, ends, strict=True):
        yield bucket, order[start:end]
