"""The vectors of chosen entities in one day's pool, found bucket by bucket.

Only the buckets that hold one of them are read, one at a time: memory is bounded by the answer and
one bucket.

Shapes: R ids asked for, N rows of an answer, D vector width.
"""

from collections.abc import Iterator

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
        layout = lake.layout(self.table.name)
        self.dim, self.buckets = layout.dim, layout.buckets
        self._dtype = np.dtype(layout.packed)

    def find(
        self,
        ds: str,
        ids: pa.Array,
        rows: npt.NDArray[np.int64],
        vectors_ND: npt.NDArray[np.float32],
        found_N: npt.NDArray[np.bool_],
    ) -> frozenset[str]:
        """Write the vectors that ids had at the end of a day into rows of an array.

        Args:
            ids: strings [R]; null for nobody.
            rows: [R], the row of each.
            vectors_ND: where vectors go, float32; rows of ids that are not found are left alone.
            found_N: where true is written for those that are.

        Returns:
            The embedding spaces of the buckets they are in.

        Raises:
            MissingInput: the day is not there, or a file of it is gone.
        """
        spaces: set[str] = set()
        if ids.null_count:
            known = ids.is_valid()
            ids, rows = ids.filter(known), rows[known.to_numpy(zero_copy_only=False)]
        files = self._lake.bucket_files(self.table.name, ds)
        for bucket, mine in _by_bucket(ids, self.buckets):
            stored = read_files(files[bucket], self.table, _COLUMNS)
            at = pc.index_in(ids.take(pa.array(mine)), value_set=one_array(stored["entity_id"]))
            known_R = at.is_valid().to_numpy(zero_copy_only=False)
            into = rows[mine[known_R]]
            vectors_ND[into] = self.floats(stored["embedding"])[at.drop_null().to_numpy()]
            found_N[into] = True
            spaces.update(pc.unique(stored["space_id"]).to_pylist())
        return frozenset(spaces)

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
