"""The graph of the Pin index: which Pins share a node, and the links between nodes.

Two things keep dense clusters within reach of a search. Measured as recall@10 at efSearch 512 with
16 links, searched in float16 each time:

- Links are chosen by Euclidean distance, though searches go by inner product. Rounding to float16
  changes norms by about 1e-4, which in a dense cluster is more than the distance between its
  members: by inner product the longest of them are then everyone's neighbours, and the rest is out
  of reach. Eight clusters of 1,000 vectors (64 values, noise 1e-3): 0.23 by inner product, 0.97 by
  distance. Between unit vectors that are not rounded the two are the same order.
- They are chosen by direction from the mean vector. Where most Pins are much alike and a user's
  best ones are not, the way to those leads through the few Pins that lie a little in their
  direction. A young pool with 0.99 as the norm of its mean: 0.68 from the origin, 0.83 from the
  mean; 0.85 and 0.98 with twice the links. Pools that are spread out lose nothing. Subtracting a
  constant from all Pins changes scores by a constant, so the order to find is the same.

Three things make the build cheap; they leave the recall as it is. CPU cycles to insert 40,000
vectors of 256 values, hnswlib with the same settings as 1: float32 1.07, float16 0.86, and 0.73
with neighbours inserted one after another.

- The vectors are read in float16 while links are chosen: half the memory traffic.
- A tenth of the nodes goes first, at random, as the skeleton that later ones are linked to; then
  the rest, neighbourhood by neighbourhood, so that what one insertion reads is still in the cache
  for the next.
- Links are chosen in half the dimensions, the principal ones, where those hold most of the
  variance, as in learned vectors they do. Of 500,000 clustered vectors (0.84 in half of 256) a
  build with 80 candidates takes 0.85 of the CPU, and the width for recall@10 of 0.95 falls from
  64 to 20: the rest was noise. Where all dimensions count alike it would ruin the graph (recall
  0.66 becomes 0.38).

FAISS inserts with all cores, so two builds of the same Pins differ in a few links and in nothing
that the check can see; below `_SERIAL_NODES` one thread builds, and the bytes are the same too.

Shapes: N Pins, G nodes (distinct vectors), D vector width.
"""

import os
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from feature_store.config import IndexConfig
from feature_store.index.search import Rows, Vectors

_METRIC = faiss.METRIC_INNER_PRODUCT
_SERIAL_NODES = 20_000
# Insertion order: the share that goes first, nodes per neighbourhood, and nodes inserted at a time
# (FAISS shuffles what it is given at once).
_SKELETON, _NEIGHBOURHOOD, _AT_ONCE = 0.1, 256, 8_192
# Wide vectors of pools above `_SERIAL_NODES` are halved where a sample says that so much variance
# stays; narrower ones are read as fast as they are.
_HALVED_WIDTH, _SAMPLE, _VARIANCE = 128, 16_384, 0.8
# Rows that are compared at a time.
_CHUNK = 65_536
# A GPU has nothing to gain from fewer; and converting a handful hangs (faiss issue 4260).
_CAGRA_NODES = 100_000
_QUANTIZER = {
    "float16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,
}
# -0 as it is stored, which equals 0.
_MINUS_ZERO: dict[str, np.unsignedinteger] = {
    "float16": np.uint16(1 << 15),
    "float32": np.uint32(1 << 31),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodes:
    """Which Pins share a node: those whose vectors are equal as they are stored.

    Attributes:
        vectors: of each node's first Pin, not rounded [G, D]; nodes are in the order of those Pins.
        order: position among the Pins [N], by node, then by position.
        offsets: the Pins of node g are order[offsets[g]:offsets[g + 1]]; [G + 1].
    """

    vectors: Vectors
    order: Rows
    offsets: Rows


def distinct(vectors: Vectors, config: IndexConfig) -> Nodes:
    """Group vectors [N, D] by their stored bytes; -0 and 0 are the same number."""
    if len(vectors) == 0:
        return Nodes(vectors=vectors, order=np.zeros(0, np.int64), offsets=np.zeros(1, np.int64))
    storage = _storage(vectors.shape[1], config)
    storage.train(vectors)
    codes = storage.sa_encode(vectors)
    if config.storage in _MINUS_ZERO:
        bits = codes.view(f"u{_MINUS_ZERO[config.storage].itemsize}")
        bits[bits == _MINUS_ZERO[config.storage]] = 0
    first, group = _groups(codes)
    # From the order of the hashes, which moves with the vectors, to the order of the first Pins.
    node = np.argsort(np.argsort(first))[group]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(node))]).astype(np.int64)
    shared = len(first) < len(vectors)
    return Nodes(
        vectors=vectors[np.sort(first)] if shared else vectors,
        order=np.argsort(node, kind="stable"),
        offsets=offsets,
    )


def _groups(codes: npt.NDArray[np.uint8]) -> tuple[Rows, Rows]:
    """The first row [G] of each distinct row of bytes [N, bytes], and the group [N] of every row.

    By hash, which is four times as fast as by the bytes themselves; those have the last word.
    """
    hashes = np.concatenate([_hash(codes[at : at + _CHUNK]) for at in range(0, len(codes), _CHUNK)])
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    for at in range(0, len(codes), _CHUNK):
        if not np.array_equal(codes[first[group[at : at + _CHUNK]]], codes[at : at + _CHUNK]):
            keys = codes.view(f"V{codes.shape[1]}").ravel()
            _, first, group = np.unique(keys, return_index=True, return_inverse=True)
            break
    return first, group


def _hash(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """A hash of each row of bytes: eight at a time, folded, then weighed by random odd numbers."""
    if spare := -codes.shape[1] % 8:
        codes = np.pad(codes, ((0, 0), (0, spare)))
    words = codes.view(np.uint64)
    hashes: npt.NDArray[np.uint64] = (words ^ (words >> np.uint64(32))) @ hash_weights(
        words.shape[1]
    )
    return hashes


def hash_weights(words: int) -> npt.NDArray[np.uint64]:
    """What each word of a row is weighed by."""
    weights = np.random.default_rng(0).integers(0, 2**64, words, np.uint64)
    return weights | np.uint64(1)


def build(vectors: Vectors, config: IndexConfig, threads: int = 0) -> faiss.IndexHNSW:
    """A new graph over nodes [G, D], in their order: by CAGRA where a GPU can, by HNSW otherwise.

    Args:
        threads: for inserting; 0 means all cores.
    """
    if _has_cagra() and len(vectors) >= _CAGRA_NODES:
        return on_storage(_cagra_graph(vectors, config), vectors, config)
    with _threads(1 if len(vectors) <= _SERIAL_NODES else threads):
        return on_storage(_hnsw_graph(vectors, config), vectors, config)


def flat(vectors: Vectors, config: IndexConfig) -> faiss.Index:
    """The vectors alone, compared one by one in every search."""
    index = _storage(vectors.shape[1], config)
    index.train(vectors)
    index.add(vectors)
    return index


def on_storage(graph: faiss.IndexHNSW, vectors: Vectors, config: IndexConfig) -> faiss.IndexHNSW:
    """An index with the links of `graph`, built over the same nodes, and the configured storage."""
    dim = vectors.shape[1]
    if config.storage == "float32":
        index = faiss.IndexHNSWFlat(dim, config.links, _METRIC)
    else:
        index = faiss.IndexHNSWSQ(dim, _QUANTIZER[config.storage], config.links, _METRIC)
    index.hnsw, index.ntotal, index.is_trained = graph.hnsw, len(vectors), True
    index.hnsw.is_similarity = True  # the links may have been chosen by distance
    replace_vectors(index, vectors)
    return index


def replace_vectors(index: faiss.IndexHNSW, vectors: Vectors) -> None:
    """Put other vectors [G, D] below the same links."""
    storage = faiss.downcast_index(index.storage)
    storage.reset()
    if len(vectors):
        storage.train(vectors)
        storage.add(vectors)


def normalise(vectors: npt.NDArray) -> Vectors:
    """Rows [N, D] divided by their norm; zero rows stay zero."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
    return unit


def _hnsw_graph(vectors: Vectors, config: IndexConfig) -> faiss.IndexHNSW:
    """A graph over nodes [G, D]; its storage is of no use afterwards."""
    directions = _principal(_directions(vectors)) if len(vectors) else vectors
    dim, metric = directions.shape[1], faiss.METRIC_L2
    graph = faiss.IndexHNSWSQ(dim, _QUANTIZER["float16"], config.links, metric)
    graph.hnsw.efConstruction = config.ef_construction
    if len(vectors) == 0:
        return graph
    order, skeleton = _insertion_order(directions)
    graph.add(directions[order[:skeleton]])
    for start in range(skeleton, len(order), _AT_ONCE):
        graph.add(directions[order[start : start + _AT_ONCE]])
    places = np.argsort(order)  # a name of its own: FAISS is given its address alone
    graph.hnsw.permute_entries(faiss.swig_ptr(places))
    return graph


def _insertion_order(directions: Vectors) -> tuple[Rows, int]:
    """Nodes in the order of their insertion [G], and how many of them are the skeleton.

    A neighbourhood is what lies nearest to one of G / `_NEIGHBOURHOOD` nodes, drawn at random.
    """
    rng, count = np.random.default_rng(0), len(directions)
    first = rng.random(count) < _SKELETON
    centres = directions[rng.choice(count, max(count // _NEIGHBOURHOOD, 1), replace=False)]
    _, near = faiss.knn(directions, centres, 1, metric=_METRIC)
    order = np.argsort(near[:, 0], kind="stable")
    return np.concatenate([np.flatnonzero(first), order[~first[order]]]), int(first.sum())


def _principal(directions: Vectors) -> Vectors:
    """The leading half of the principal components [G, D/2] where they hold the variance."""
    count, dim = directions.shape
    if count <= _SERIAL_NODES or dim < _HALVED_WIDTH:
        return directions
    chosen = np.random.default_rng(0).choice(count, min(count, _SAMPLE), replace=False)
    sample = directions[chosen]
    variances, components = np.linalg.eigh(sample.T @ sample)  # ascending
    if variances[dim // 2 :].sum() < _VARIANCE * variances.sum():
        return directions
    leading: Vectors = directions @ np.ascontiguousarray(components[:, dim // 2 :])
    return leading


def _directions(vectors: Vectors) -> Vectors:
    """Unit vectors [G, D] from the mean to each."""
    return normalise(vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32))


def _storage(dim: int, config: IndexConfig) -> faiss.Index:
    if config.storage == "float32":
        return faiss.IndexFlat(dim, _METRIC)
    return faiss.IndexScalarQuantizer(dim, _QUANTIZER[config.storage], _METRIC)


def _has_cagra() -> bool:
    """Whether this FAISS is a GPU build with CAGRA (package faiss-gpu-cuvs) and sees a GPU."""
    return hasattr(faiss, "GpuIndexCagra") and faiss.get_num_gpus() > 0


def _cagra_graph(vectors: Vectors, config: IndexConfig) -> faiss.IndexHNSW:
    """A graph built by CAGRA on the GPU and converted to HNSW, with float32 storage.

    Source: Ootomo et al., CAGRA, 2024; faiss/gpu/GpuIndexCagra.h, `copyTo`.
    """
    dim, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    settings = faiss.GpuIndexCagraConfig()
    # HNSW's lowest level, which CAGRA fills, has twice `links` neighbours.
    settings.graph_degree = 2 * config.links
    settings.intermediate_graph_degree = 4 * config.links
    graph = faiss.GpuIndexCagra(faiss.StandardGpuResources(), dim, metric, settings)
    directions = _directions(vectors)  # FAISS may refer to it until the copy
    graph.train(directions)
    index = faiss.IndexHNSWCagra(dim, config.links, metric)
    graph.copyTo(index)
    return index


class _threads:  # noqa: N801 - reads as a statement: with _threads(...)
    """Sets FAISS' number of OpenMP threads for a while; 0 means all cores."""

    def __init__(self, count: int) -> None:
        self._count = count or os.cpu_count() or 1

    def __enter__(self) -> None:
        self._before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        faiss.omp_set_num_threads(self._before)
