"""Build the Pin index: fresh or from yesterday's graph, checked against exact search, then visible.

FAISS inserts with all cores, so two builds of the same Pins differ in a few links and in nothing
that the check can see; below `_SERIAL_PINS` one thread builds, and the bytes are the same too.

Shapes: N Pins, D vector width, Q queries, K results.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import xxhash

from feature_store.config import IndexConfig
from feature_store.contracts.errors import GuardFailed, StoreError
from feature_store.index import GRAPH, IDS, MANIFEST, IndexManifest, PinIndex, Rows, Vectors

_SERIAL_PINS = 20_000
_CHUNK_ROWS = 131_072
# A GPU has nothing to gain from fewer; and converting a handful hangs (faiss issue 4260).
_CAGRA_PINS = 100_000
# float16 rounds scores: results this close to the K-th best are as good as it.
_TIE = 1e-4
_QUANTIZER = {
    "float16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Coded:
    """A string column [N]: positions in `values`, which may repeat a value."""

    values: tuple[str, ...]
    codes: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class PinTable:
    """What is indexed.

    Attributes:
        ids: UTF-8 bytes [N], sorted, distinct.
        vectors: L2-normalised [N, D].
        metadata: column -> strings [N], to filter by.
    """

    ids: npt.NDArray[np.bytes_]
    vectors: Vectors
    metadata: Mapping[str, Coded]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where an index comes from; recorded in its manifest."""

    ds: str
    space_id: str
    pool_digest: str
    config_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A graph that passed its check, not written yet."""

    index: faiss.IndexHNSW
    built_ds: str
    recall_at_10: float
    ef_search: int


def normalise(vectors: npt.NDArray) -> Vectors:
    """Rows [N, D] divided by their norm; zero rows stay zero."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
    return unit


def build(pins: PinTable, config: IndexConfig, threads: int = 0) -> faiss.IndexHNSW:
    """A new graph over the Pins, in their order: by CAGRA where a GPU can, by HNSW otherwise."""
    if _has_cagra() and len(pins.ids) >= _CAGRA_PINS:
        return on_storage(_cagra_graph(pins, config), pins, config)
    index = _empty(pins.vectors.shape[1], config)
    if len(pins.ids):
        with _threads(1 if len(pins.ids) <= _SERIAL_PINS else threads):
            index.train(pins.vectors)
            index.add(pins.vectors)
    return index


def on_storage(graph: faiss.IndexHNSW, pins: PinTable, config: IndexConfig) -> faiss.IndexHNSW:
    """An index with the links of `graph`, built over the same Pins, and the configured storage."""
    index = _empty(pins.vectors.shape[1], config)
    storage = faiss.downcast_index(index.storage)
    storage.train(pins.vectors)
    storage.add(pins.vectors)
    index.hnsw, index.ntotal, index.is_trained = graph.hnsw, len(pins.ids), True
    return index


def _empty(dim: int, config: IndexConfig) -> faiss.IndexHNSW:
    metric = faiss.METRIC_INNER_PRODUCT
    if config.storage == "float32":
        index = faiss.IndexHNSWFlat(dim, config.links, metric)
    else:
        index = faiss.IndexHNSWSQ(dim, _QUANTIZER[config.storage], config.links, metric)
    index.hnsw.efConstruction = config.ef_construction
    return index


def _has_cagra() -> bool:
    """Whether this FAISS is a GPU build with CAGRA (package faiss-gpu-cuvs) and sees a GPU."""
    return hasattr(faiss, "GpuIndexCagra") and faiss.get_num_gpus() > 0


def _cagra_graph(pins: PinTable, config: IndexConfig) -> faiss.IndexHNSW:
    """A graph built by CAGRA on the GPU and converted to HNSW, with float32 storage.

    Source: Ootomo et al., CAGRA, 2024; faiss/gpu/GpuIndexCagra.h, `copyTo`.
    """
    dim, metric = pins.vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    settings = faiss.GpuIndexCagraConfig()
    # HNSW's lowest level, which CAGRA fills, has twice `links` neighbours.
    settings.graph_degree = 2 * config.links
    settings.intermediate_graph_degree = 4 * config.links
    graph = faiss.GpuIndexCagra(faiss.StandardGpuResources(), dim, metric, settings)
    graph.train(pins.vectors)
    index = faiss.IndexHNSWCagra(dim, config.links, metric)
    graph.copyTo(index)
    return index


def warm_start(yesterday: PinIndex, pins: PinTable) -> faiss.IndexHNSW | None:
    """Yesterday's graph with today's vectors in it; None when the Pins are not the same ones.

    Who is near whom changes little in a day, so the links stay good: the caller's recall check
    decides. Source of the idea: the graph and its storage are separate in FAISS.
    """
    if not np.array_equal(yesterday.row_ids, pins.ids) or len(pins.ids) == 0:
        return None
    # A copy of its own: the loaded one is a read-only memory map.
    index = faiss.read_index(str(yesterday.folder / GRAPH))
    storage = faiss.downcast_index(index.storage)
    if storage.d != pins.vectors.shape[1]:
        return None
    storage.reset()
    storage.train(pins.vectors)
    storage.add(pins.vectors)
    return index


def check(
    index: faiss.IndexHNSW, pins: PinTable, queries: Vectors, config: IndexConfig, ef_from: int = 0
) -> tuple[float, int]:
    """Recall@10 against exact search, and the smallest efSearch tried that reaches the bound.

    Args:
        queries: [Q, D] sampled users.
        ef_from: efSearch to begin with; 0 begins with the configured one.

    Returns:
        recall, efSearch. The recall is below the bound when `ef_max` was not enough.
    """
    k = min(10, len(pins.ids))
    ef = min(ef_from or config.ef_search, config.ef_max)
    if k == 0 or len(queries) == 0:
        return 1.0, ef
    kth = _exact_kth_score(pins.vectors, queries, k)
    while True:
        params = faiss.SearchParametersHNSW(efSearch=max(ef, k))
        _, rows = index.search(queries, k, params=params)
        recall = _recall(pins.vectors, queries, rows, kth)
        if recall >= config.recall_at_10 or ef >= config.ef_max:
            return recall, ef
        ef = min(2 * ef, config.ef_max)


def build_checked(
    pins: PinTable,
    queries: Vectors,
    config: IndexConfig,
    lineage: Lineage,
    yesterday: PinIndex | None = None,
    threads: int = 0,
) -> Built:
    """A graph that reaches the recall bound: yesterday's when it does, a new one otherwise.

    Raises:
        GuardFailed: even a new graph does not reach the bound at `ef_max`.
    """
    if yesterday is not None and (index := warm_start(yesterday, pins)) is not None:
        recall, ef = check(index, pins, queries, config)
        if recall >= config.recall_at_10:
            built_ds = yesterday.manifest.built_ds
            return Built(index=index, built_ds=built_ds, recall_at_10=recall, ef_search=ef)
    index = build(pins, config, threads)
    recall, ef = check(index, pins, queries, config)
    if recall < config.recall_at_10:
        raise GuardFailed(
            "the Pin index misses too many of the nearest Pins",
            where=f"{len(pins.ids)} Pins, {len(queries)} sampled users, day {lineage.ds}",
            expected=f"recall@10 >= {config.recall_at_10}",
            found=f"{recall:.4f} at efSearch {ef}",
            hint="raise ef_max, links or ef_construction in the recipe's IndexConfig",
        )
    return Built(index=index, built_ds=lineage.ds, recall_at_10=recall, ef_search=ef)


def write(folder: Path, built: Built, pins: PinTable, lineage: Lineage) -> IndexManifest:
    """Write an index folder so that it is either whole or absent.

    Raises:
        StoreError: the disk is full or not writable; nothing is left behind.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        faiss.write_index(built.index, str(draft / GRAPH))
        np.save(draft / IDS, pins.ids, allow_pickle=False)
        columns: dict[str, tuple[str, ...]] = {}
        for name, column in pins.metadata.items():
            values, positions = np.unique(np.array(column.values, np.str_), return_inverse=True)
            codes = positions[column.codes].astype(np.int32)
            np.save(draft / f"{name}.npy", codes, allow_pickle=False)
            columns[name] = tuple(str(v) for v in values)
        files = sorted(p for p in draft.iterdir())
        manifest = IndexManifest(
            ds=lineage.ds,
            built_ds=built.built_ds,
            space_id=lineage.space_id,
            pool_digest=lineage.pool_digest,
            config_digest=lineage.config_digest,
            dim=pins.vectors.shape[1],
            pins=len(pins.ids),
            ef_search=built.ef_search,
            recall_at_10=built.recall_at_10,
            files={p.name: file_digest(p) for p in files},
            sizes={p.name: p.stat().st_size for p in files},
            columns=columns,
        )
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        for path in draft.iterdir():
            _flush(path)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except (OSError, RuntimeError) as error:
        # FAISS reports a short write as RuntimeError.
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreError(
            "the Pin index could not be written",
            where=str(folder),
            expected=f"about {pins.vectors.nbytes:,} bytes of free space",
            found=f"{shutil.disk_usage(folder.parent).free:,} bytes free; {error}",
            hint="free space, then run again; readers keep the previous index",
        ) from error
    return manifest


def file_digest(path: Path) -> str:
    """Digest of a file's bytes."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            state.update(chunk)
    return state.hexdigest()


def _exact_kth_score(vectors: Vectors, queries: Vectors, k: int) -> Vectors:
    """Score [Q] of the K-th best Pin, by brute force over chunks of Pins."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        scores = queries @ vectors[start : start + _CHUNK_ROWS].T
        both = np.concatenate([best, scores], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
    kth: Vectors = best.min(axis=1)
    return kth


def _recall(vectors: Vectors, queries: Vectors, rows: Rows, kth: Vectors) -> float:
    """Share of results [Q, K] as good as the K-th exact one: ties count as found."""
    scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(rows, 0)])
    scale = np.linalg.norm(queries, axis=1, keepdims=True)
    good = (scores >= kth[:, None] - _TIE * scale) & (rows >= 0)
    return float(good.mean())


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class _threads:  # noqa: N801 - reads as a statement: with _threads(...)
    """Sets FAISS' number of OpenMP threads for a while; 0 means all cores."""

    def __init__(self, count: int) -> None:
        self._count = count or os.cpu_count() or 1

    def __enter__(self) -> None:
        self._before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(self._count)

    def __exit__(self, *_: object) -> None:
        faiss.omp_set_num_threads(self._before)
