"""Build the Pin index: fresh or from yesterday's graph, checked against exact search, then visible.

Shapes: N Pins, G nodes (distinct vectors), D vector width, Q queries, K results.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import xxhash

from feature_store.config import IndexConfig
from feature_store.contracts.errors import Broken, GuardFailed, ManifestCorrupt, StoreError
from feature_store.contracts.sealed import sealed
from feature_store.index.graph import Nodes, build, distinct, flat, replace_vectors
from feature_store.index.index import (
    BY_ID,
    GRAPH,
    IDS,
    MANIFEST,
    OFFSETS,
    IndexManifest,
    PinIndex,
    column_file,
    read_manifest,
)
from feature_store.index.search import NodeSearch, Vectors, expand

_CHUNK_ROWS = 131_072
# float16 rounds scores: results this close to the K-th best are as good as it.
_TIE = 1e-4


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
        numbers: column -> float32 [N], NaN where unknown, to filter by.
    """

    ids: npt.NDArray[np.bytes_]
    vectors: Vectors
    metadata: Mapping[str, Coded] = field(default_factory=dict)
    numbers: Mapping[str, Vectors] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where an index comes from; recorded in its manifest."""

    ds: str
    space_id: str
    pool_digest: str
    config_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An index that passed its check, not written yet.

    Attributes:
        index: over the distinct vectors: a graph, or the vectors alone.
        nodes: which Pins share one.
    """

    index: faiss.Index
    nodes: Nodes
    built_ds: str
    recall_at_10: float
    ef_search: int


def warm_start(yesterday: PinIndex, pins: PinTable, nodes: Nodes) -> faiss.IndexHNSW | None:
    """Yesterday's graph with today's vectors in it; None when its nodes are not today's.

    They are when the Pins are the same ones and the same of them share a vector. Who is near whom
    changes little in a day, so the links stay good: the caller's recall check decides. Source of
    the idea: the graph and its storage are separate in FAISS.
    """
    same = np.array_equal(yesterday.offsets, nodes.offsets) and np.array_equal(
        yesterday.row_ids, pins.ids[nodes.order]
    )
    if yesterday.manifest.exact or not same or len(pins.ids) == 0:
        return None
    # A copy of its own: the loaded one is a read-only memory map.
    index = faiss.read_index(str(yesterday.folder / GRAPH))
    if index.d != nodes.vectors.shape[1]:
        return None
    replace_vectors(index, nodes.vectors)
    return index


def check(
    index: faiss.Index, pins: PinTable, nodes: Nodes, queries: Vectors, config: IndexConfig
) -> tuple[float, int]:
    """Recall@10 against exact search, and the smallest efSearch tried that reaches the bound.

    Args:
        queries: [Q, D] sampled users.

    Returns:
        recall, efSearch (0 where there is no graph). The recall is below the bound when `ef_max`
        was not enough.
    """
    search = NodeSearch(index)
    k, ef = min(10, len(pins.ids)), min(config.ef_search, config.ef_max) if search.graph else 0
    if k == 0 or len(queries) == 0:
        return 1.0, ef
    kth = _exact_kth_score(pins.vectors, queries, k)
    while True:
        _, found = search.search(queries, k, ef)
        rows, _ = expand(found, nodes.offsets, k)
        recall = _recall(pins.vectors[nodes.order[rows]], queries, rows >= 0, kth)
        if recall >= config.recall_at_10 or ef >= config.ef_max or not search.graph:
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
    """An index that reaches the recall bound, the first of `_candidates` that does.

    Raises:
        GuardFailed: none does, each at `ef_max`.
    """
    nodes = distinct(pins.vectors, config)
    recall, ef = 0.0, 0
    for index, built_ds in _candidates(pins, nodes, config, lineage, yesterday, threads):
        recall, ef = check(index, pins, nodes, queries, config)
        if recall >= config.recall_at_10:
            return Built(
                index=index, nodes=nodes, built_ds=built_ds, recall_at_10=recall, ef_search=ef
            )
    raise GuardFailed(
        "the Pin index misses too many of the nearest Pins",
        where=f"{len(pins.ids)} Pins, {len(nodes.vectors)} distinct vectors, "
        f"{len(queries)} sampled users, day {lineage.ds}",
        expected=f"recall@10 >= {config.recall_at_10}",
        found=f"{recall:.4f} at efSearch {ef}",
        broken=(Broken(guard="index.recall_at_10", found=recall, bound=config.recall_at_10),),
        hint="raise ef_max, links, ef_construction or exact_below in the recipe's IndexConfig; "
        "or storage, if exact search misses them too",
    )


def _candidates(
    pins: PinTable,
    nodes: Nodes,
    config: IndexConfig,
    lineage: Lineage,
    yesterday: PinIndex | None,
    threads: int,
) -> Iterator[tuple[faiss.Index, str]]:
    """Indexes to try, cheapest first, each with the day its graph was built."""
    if yesterday is not None and (index := warm_start(yesterday, pins, nodes)) is not None:
        yield index, yesterday.manifest.built_ds
    yield build(nodes.vectors, config, threads), lineage.ds
    denser = replace(config, links=2 * config.links, ef_construction=4 * config.ef_construction)
    yield build(nodes.vectors, denser, threads), lineage.ds
    if len(nodes.vectors) < config.exact_below:
        yield flat(nodes.vectors, config), lineage.ds


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
        order = built.nodes.order
        np.save(draft / IDS, pins.ids[order], allow_pickle=False)
        np.save(draft / OFFSETS, built.nodes.offsets, allow_pickle=False)
        np.save(draft / BY_ID, np.argsort(order), allow_pickle=False)
        columns: dict[str, tuple[str, ...]] = {}
        for name, column in pins.metadata.items():
            values, positions = np.unique(np.array(column.values, np.str_), return_inverse=True)
            codes = positions[column.codes[order]].astype(np.int32)
            np.save(draft / column_file(name), codes, allow_pickle=False)
            columns[name] = tuple(str(v) for v in values)
        for name, numbers in pins.numbers.items():
            np.save(draft / column_file(name), numbers[order], allow_pickle=False)
        files = sorted(p for p in draft.iterdir())
        manifest = IndexManifest(
            ds=lineage.ds,
            built_ds=built.built_ds,
            space_id=lineage.space_id,
            pool_digest=lineage.pool_digest,
            config_digest=lineage.config_digest,
            dim=pins.vectors.shape[1],
            pins=len(pins.ids),
            distinct=len(built.nodes.vectors),
            exact=not isinstance(built.index, faiss.IndexHNSW),
            ef_search=built.ef_search,
            recall_at_10=built.recall_at_10,
            files={p.name: file_xxh3(p) for p in files},
            sizes={p.name: p.stat().st_size for p in files},
            columns=columns,
            numbers=tuple(pins.numbers),
        )
        (draft / MANIFEST).write_text(sealed(manifest.model_dump_json()))
        for path in draft.iterdir():
            _flush(path)
        _replace(folder, draft)
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


def _replace(folder: Path, draft: Path) -> None:
    """Put a finished draft in the place of a folder; who has mapped the old files keeps them."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def damages(folder: Path) -> tuple[str, ...]:
    """Names of the files of an index folder that are gone, or not what was written."""
    try:
        files = read_manifest(folder).files
    except (StoreError, ManifestCorrupt):
        return (MANIFEST,)
    paths = ((folder / name, digest) for name, digest in files.items())
    return tuple(p.name for p, digest in paths if not p.exists() or file_xxh3(p) != digest)


def file_xxh3(path: Path) -> str:
    """XXH3 of a file's bytes, 128 bits: fast, against damage and not against malice."""
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


def _recall(vectors: Vectors, queries: Vectors, hit: npt.NDArray[np.bool_], kth: Vectors) -> float:
    """Share of results [Q, K, D] as good as the K-th exact one: ties count as found."""
    scores = np.einsum("qd,qkd->qk", queries, vectors)
    scale = np.linalg.norm(queries, axis=1, keepdims=True)
    good = (scores >= kth[:, None] - _TIE * scale) & hit
    return float(good.mean())


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
