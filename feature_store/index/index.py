"""The Pin index: an HNSW graph over L2-normalised vectors, searched by inner product.

Pins with the same stored vector (cold ones with the same features, mostly) share one node of the
graph: equal vectors would fill each other's links and become an island that no search reaches.

A folder on disk, beside `index.json`, which is written last (without it a folder is unfinished):
`graph.faiss`: the distinct vectors and their graph; the vectors alone when the index is exact;
`ids.npy`: row -> Pin id as UTF-8 bytes, rows ordered by node, then by id;
`offsets.npy`: the Pins of node g are the rows offsets[g] to offsets[g + 1];
`by_id.npy`: the rows in ascending order of id;
`where_<column>.npy`: row -> code, for each metadata column of values; row -> float32, NaN where
unknown, for each one of numbers.

Shapes: N Pins, G nodes (distinct vectors), D vector width, Q queries, K results.
Source: Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs, 2018; implementation of FAISS.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import Field, ValidationError

from feature_store.contracts.base import Contract, Day
from feature_store.contracts.errors import InputError, ManifestCorrupt, StoreError
from feature_store.contracts.sealed import unsealed
from feature_store.index.search import NodeSearch, Rows, Vectors, expand

MANIFEST = "index.json"
GRAPH = "graph.faiss"
IDS = "ids.npy"
OFFSETS = "offsets.npy"
BY_ID = "by_id.npy"

# What a Pin's metadata must be: a value, or a number from the least to the most, both included;
# None is no bound.
Wanted = str | tuple[float | None, float | None]


class IndexManifest(Contract):
    """What an index folder holds.

    Attributes:
        built_ds: the day its graph was built; older than `ds` when the graph was warm-started.
        distinct: nodes; the other Pins share a vector with one of them.
        exact: no graph reached the recall, so every vector is compared.
        ef_search: candidates per query at which the recall was measured; 0 when exact.
        files: name -> digest of every other file of the folder.
        sizes: name -> bytes, checked on every load.
        columns: metadata column -> its distinct values; the column's file holds positions.
        numbers: metadata columns that hold numbers.
    """

    ds: Day
    built_ds: Day
    space_id: str
    pool_digest: str
    config_digest: str
    dim: int
    pins: int
    distinct: int
    exact: bool
    ef_search: int
    recall_at_10: float
    files: dict[str, str]
    sizes: dict[str, int]
    columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    numbers: tuple[str, ...] = ()

    def content_digest(self) -> str:
        """Digest of what searches see, whenever and from whatever it was built."""
        seen = self.model_dump_json(exclude={"ds", "built_ds", "recall_at_10", "sizes"})
        return xxhash.xxh3_128_hexdigest(seen.encode())


@dataclass(frozen=True, slots=True)
class Hits:
    """Results of Q queries, best first.

    Attributes:
        ids: Pin ids [Q, K]; empty strings where fewer than K Pins match.
        scores: cosine [Q, K] up to the query's norm; -inf beside empty ids.
    """

    ids: npt.NDArray[np.str_]
    scores: Vectors


class PinIndex:
    """An index loaded by memory map; safe to search from several threads.

    Args:
        folder: a finished index folder.

    Raises:
        StoreError: the folder is unfinished, damaged, or not readable.
        ManifestCorrupt: its manifest cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = read_manifest(folder)
        self.folder = folder
        for name, size in self.manifest.sizes.items():
            found = (folder / name).stat().st_size if (folder / name).exists() else -1
            if found != size:
                raise StoreError(
                    "a file of the Pin index is damaged",
                    where=str(folder / name),
                    expected=f"{size} bytes",
                    found="no file" if found < 0 else f"{found} bytes",
                    hint="build it again: derm index --ds DAY --force; or derm rollback",
                )
        self._nodes = NodeSearch(faiss.read_index(str(folder / GRAPH), faiss.IO_FLAG_MMAP_IFC))
        self.row_ids = np.load(folder / IDS, mmap_mode="r")
        self.offsets = np.load(folder / OFFSETS, mmap_mode="r")
        self._by_id = np.load(folder / BY_ID, mmap_mode="r")
        self._columns = {
            name: np.load(folder / column_file(name), mmap_mode="r")
            for name in (*self.manifest.columns, *self.manifest.numbers)
        }

    def __len__(self) -> int:
        return len(self.row_ids)

    def search(self, queries: Vectors, k: int, where: Mapping[str, Wanted] | None = None) -> Hits:
        """The K best Pins of each query.

        Args:
            queries: [Q, D], any norm: it scales the scores, not the order.
            where: metadata column -> value that a Pin must have, or least and most of a number.

        Raises:
            InputError: another width, or a filter the index does not have.
        """
        queries = np.ascontiguousarray(np.atleast_2d(queries), np.float32)
        if queries.shape[1] != self.manifest.dim:
            raise InputError(
                "a query has another width than the index",
                expected=str(self.manifest.dim),
                found=str(queries.shape[1]),
                hint="users and Pins of one release share a width: were both read from it?",
            )
        kept = self.kept(where) if where else None
        among = None if kept is None else np.unique(self._nodes_of(kept))
        # K nodes hold K Pins or more.
        node_scores, nodes = self._nodes.search(queries, k, self.manifest.ef_search, among)
        rows, ranks = expand(nodes, self.offsets, k, kept)
        hit = rows >= 0
        ids = np.full(rows.shape, "", object)
        ids[hit] = [i.decode() for i in self.row_ids[rows[hit]].tolist()]
        scores = np.full(rows.shape, -np.inf, np.float32)
        scores[hit] = node_scores[np.nonzero(hit)[0], ranks[hit]]
        return Hits(ids=ids.astype(np.str_), scores=scores)

    def kept(self, where: Mapping[str, Wanted]) -> Rows:
        """Rows, ascending, whose metadata is all that is asked for; an unknown number never is.

        Raises:
            InputError: the index has no such column of values, or of numbers.
        """
        mask = np.ones(len(self), np.bool_)
        for name, wanted in where.items():
            mask &= self._matches(name, wanted)
        return np.flatnonzero(mask)

    def _matches(self, name: str, wanted: Wanted) -> npt.NDArray[np.bool_]:
        """Which rows [N] have the metadata."""
        manifest = self.manifest
        if name in manifest.columns and isinstance(wanted, str):
            values, codes = manifest.columns[name], self._columns[name]
            return np.asarray(codes == (values.index(wanted) if wanted in values else -1))
        if name in manifest.numbers and not isinstance(wanted, str):
            (least, most), numbers = wanted, self._columns[name]
            from_least = numbers >= (-np.inf if least is None else least)
            return np.asarray(from_least & (numbers <= (np.inf if most is None else most)))
        raise InputError(
            f"Pins cannot be filtered by {name!r}",
            where=str(self.folder),
            expected=f"a value of {' '.join(manifest.columns) or 'no column'}, "
            f"or (least, most) of {' '.join(manifest.numbers) or 'no column'}",
            found=f"{name}: {wanted!r}",
        )

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """The row [n] of each Pin id, -1 where it is not in the index."""
        wanted = np.array([i.encode() for i in ids], np.bytes_)
        if len(self) == 0 or len(wanted) == 0:
            return np.full(len(wanted), -1, np.int64)
        rank = np.searchsorted(self.row_ids, wanted, sorter=self._by_id)
        rows = self._by_id[np.minimum(rank, len(self) - 1)]
        return np.where(self.row_ids[rows] == wanted, rows, -1)

    def vectors(self, rows: Rows) -> Vectors:
        """Stored vectors [len(rows), D], in float32."""
        found = np.empty((len(rows), self.manifest.dim), np.float32)
        if len(rows):
            self._nodes.index.reconstruct_batch(self._nodes_of(rows), found)
        return found

    def _nodes_of(self, rows: Rows) -> Rows:
        """The node [n] of each row."""
        return np.searchsorted(self.offsets, rows, side="right") - 1


def column_file(name: str) -> str:
    """The file of a metadata column; a feature may be called like any other file of the folder."""
    return f"where_{name}.npy"


def read_manifest(folder: Path) -> IndexManifest:
    """The manifest of a finished index folder.

    Raises:
        StoreError: the folder is not there, or was never finished.
        ManifestCorrupt: the manifest cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(
            "there is no finished Pin index",
            where=str(folder),
            expected=MANIFEST,
            hint="derm index --ds DAY --upstream U",
        )
    try:
        return IndexManifest.model_validate_json(unsealed(path))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ManifestCorrupt(
            "the manifest of a Pin index cannot be read", where=str(path), found=str(error)
        ) from error
