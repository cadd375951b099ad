"""The Pin index against hnswlib and usearch: build, queries per second, recall, bytes, warm start.

    make .venv-bench/.bench
    python -m benchmarks.pipeline.index --json index.json [--pins 100000] [--no-warm] [--pool HOME]

All contenders index the same normalised vectors with the same number of threads and the same
links and construction width (hnswlib_careful: 16 and 80, hnswlib_wide: 32 and 40), and are asked
by one thread with the smallest search width that reaches recall@10 >= 0.95 against exact search,
ties counted as found. Rounds alternate; medians are reported. `build_cpu_s` is what the build took
of all cores: where other work shares them, it says more than `build_s`.

The clustered set is synthetic (a mixture of Gaussians of low intrinsic dimension), its queries
are Pins, moved. `--pool` takes the newest Pin pool of a home instead, and its users as queries:
every Pin of it, also those that share a vector, which ours gives one node.

`bytes` of ours are the graph, the vectors and which Pins share one, as a rival's are with its
integer keys; `bytes_with_ids` also string ids and their order, which rivals leave to the caller.

The warm start puts drifted vectors into the built graph, by cosine to the day before, against a
rebuild on the drifted vectors.
"""

import argparse
import os
import site
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from benchmarks import harness
from benchmarks.harness import Clock
from feature_store.config import IndexConfig
from feature_store.contracts.base import Entity
from feature_store.contracts.tables import pool_table
from feature_store.index.build import Built, Lineage, PinTable, warm_start, write
from feature_store.index.graph import Nodes, build, distinct, normalise
from feature_store.index.index import GRAPH, PinIndex
from feature_store.index.search import NodeSearch, expand
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack

ROOT = Path(__file__).resolve().parents[2]
K, RECALL, QUERIES, TIE = 10, 0.95, 1000, 1e-4
WIDTHS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)
SEARCHES = 7
LINEAGE = Lineage(ds="2025-03-01", space_id="s", pool_digest="p", config_digest="c")
Search = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, slots=True)
class Contender:
    """One built index: how to search it with a width for Pins [Q, K], and its bytes on disk.

    Attributes:
        with_ids: its bytes with string ids, where it keeps them.
    """

    search: Search
    size: int
    build: Clock
    with_ids: int = 0


def main() -> None:
    """Build and search in alternating rounds; report."""
    args = _arguments()
    for path in ROOT.glob(".venv-bench/lib/python*/site-packages"):
        site.addsitedir(str(path))  # behind ours: where both have a package, ours is used
    vectors, queries = _data(args)
    truth = _exact(vectors, queries)

    def contender(name: str) -> harness.Numbers:
        with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
            built = CONTENDERS[name](vectors, Path(folder), args)
            return _measure(built, vectors, queries, truth)

    contenders = {name: partial(contender, name) for name in args.contenders}
    medians = harness.summary(harness.alternate(contenders, args.rounds, warm_up=0))
    for values in medians.values():
        values["bytes_to_float32"] = round(values["bytes"] / vectors.nbytes, 3)
    result = {
        "contenders": medians,
        "pins": len(vectors),
        "dim": vectors.shape[1],
        "threads": args.threads,
        "warm_start": _warm(distinct(vectors, IndexConfig()).vectors, queries, args)
        if args.warm
        else None,
    }
    harness.report(result, args)


def _arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--pins", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--pool", type=Path, help="a home, whose Pins of upstream ctr to index")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--warm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also the warm start, by drift",
    )
    return parser.parse_args()


def _data(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [N, D] and queries [Q, D]."""
    rng = np.random.default_rng(0)
    if args.pool:
        users = _pool(args.pool, "user")
        chosen = rng.choice(len(users), min(QUERIES, len(users)), replace=False)
        return normalise(_pool(args.pool, "pin")), normalise(users[chosen])
    vectors = _clustered(rng, args.pins, args.dim)
    chosen = vectors[rng.choice(len(vectors), min(QUERIES, len(vectors)), replace=False)]
    noise = rng.standard_normal(chosen.shape).astype(np.float32)
    moved = chosen + 0.3 / np.sqrt(vectors.shape[1]) * noise
    return vectors, normalise(moved)


def _pool(home: Path, entity: Entity) -> np.ndarray:
    """The newest pool [N, D] of an entity type."""
    lake, name = Lake(home / "lake"), pool_table("ctr", entity).name
    layout = lake.layout(name)
    parts = [
        pq.read_table(file, columns=["embedding"]).column("embedding").combine_chunks()
        for file in lake.files(name, max(lake.days(name)))
    ]
    return np.concatenate([unpack(p, layout.dim, layout.packed) for p in parts])


def _clustered(rng: np.random.Generator, pins: int, dim: int) -> np.ndarray:
    """1,000 clusters, each of 16 intrinsic dimensions, in float32 and chunks."""
    centres = rng.standard_normal((1000, dim)).astype(np.float32)
    basis = rng.standard_normal((16, dim)).astype(np.float32)
    vectors = np.empty((pins, dim), np.float32)
    for start in range(0, pins, 50_000):
        rows = min(50_000, pins - start)
        inside = rng.standard_normal((rows, 16)).astype(np.float32) @ basis / 4
        noise = 0.2 * rng.standard_normal((rows, dim)).astype(np.float32)
        vectors[start : start + rows] = centres[rng.integers(0, 1000, rows)] + inside + noise
    return normalise(vectors)


def _exact(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Score [Q] of the K-th best Pin."""
    return faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[0][:, -1]


def _table(vectors: np.ndarray) -> PinTable:
    ids = np.char.mod("%09d", np.arange(len(vectors))).astype("S9")
    return PinTable(ids=ids, vectors=vectors, metadata={})


def _ours(vectors: np.ndarray, folder: Path, args: argparse.Namespace) -> Contender:
    """Built and written as `derm index` does, and searched from the memory map."""
    table, clock = _table(vectors), Clock()
    built = _built(vectors, args.threads)
    clock.stop()
    manifest = write(folder / "index", built, table, LINEAGE)
    loaded = faiss.read_index(str(folder / "index" / GRAPH), faiss.IO_FLAG_MMAP_IFC)
    size = sum(manifest.sizes[name] for name in ("graph.faiss", "offsets.npy"))
    search = _search(loaded, built.nodes)
    return Contender(search, size, clock, with_ids=sum(manifest.sizes.values()))


def _built(vectors: np.ndarray, threads: int) -> Built:
    """What `derm index` builds, without its check."""
    config = IndexConfig()
    nodes = distinct(vectors, config)
    return Built(
        index=build(nodes.vectors, config, threads),
        nodes=nodes,
        built_ds="2025-03-01",
        recall_at_10=1.0,
        ef_search=config.ef_search,
    )


def _search(index: faiss.Index, nodes: Nodes) -> Search:
    """As `PinIndex.search` does, up to the names of the Pins."""
    through = NodeSearch(index)

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        faiss.omp_set_num_threads(1)
        _, found = through.search(queries, K, width)
        return nodes.order[expand(found, nodes.offsets, K)[0]]

    return search


def _hnswlib(
    vectors: np.ndarray, folder: Path, args: argparse.Namespace, config: IndexConfig | None = None
) -> Contender:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    clock = Clock()
    config = config or IndexConfig()
    index.init_index(len(vectors), M=config.links, ef_construction=config.ef_construction)
    index.add_items(vectors, num_threads=args.threads)
    clock.stop()
    index.save_index(str(folder / "hnswlib"))

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        index.set_ef(width)
        return index.knn_query(queries, K, num_threads=1)[0].astype(np.int64)

    return Contender(search, (folder / "hnswlib").stat().st_size, clock)


def _usearch(vectors: np.ndarray, folder: Path, args: argparse.Namespace) -> Contender:
    from usearch.index import Index

    config = IndexConfig()
    index = Index(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=config.links,
        expansion_add=config.ef_construction,
    )
    clock = Clock()
    index.add(np.arange(len(vectors)), vectors, threads=args.threads)
    clock.stop()
    index.save(str(folder / "usearch"))

    def search(queries: np.ndarray, width: int) -> np.ndarray:
        index.expansion_search = width
        return np.asarray(index.search(queries, K, threads=1).keys).astype(np.int64)

    return Contender(search, (folder / "usearch").stat().st_size, clock)


def _recall(found: np.ndarray, vectors: np.ndarray, queries: np.ndarray, kth: np.ndarray) -> float:
    """Share of the Pins found [Q, K] that are as good as the K-th best."""
    scores = np.einsum("qd,qkd->qk", queries, vectors[found])
    return float((scores >= kth[:, None] - TIE).mean())


def _measure(
    built: Contender, vectors: np.ndarray, queries: np.ndarray, kth: np.ndarray
) -> dict[str, float]:
    """Queries per second at the smallest width that reaches the recall."""
    for width in WIDTHS:
        recall = _recall(built.search(queries, width), vectors, queries, kth)
        if recall >= RECALL:
            break
    seconds = []
    for _ in range(SEARCHES):
        started = time.perf_counter()
        built.search(queries, width)
        seconds.append(time.perf_counter() - started)
    return {
        "build_s": round(built.build.wall, 2),
        "build_cpu_s": round(built.build.cpu, 2),
        "qps": round(len(queries) / min(seconds)),
        "recall": round(recall, 4),
        "width": width,
        "bytes": built.size,
        "bytes_with_ids": built.with_ids or built.size,
    }


def _warm(vectors: np.ndarray, queries: np.ndarray, args: argparse.Namespace) -> list[dict]:
    """Warm starts by drift: seconds and recall at the built width, beside a rebuild's."""
    rng, rows, width = np.random.default_rng(1), [], IndexConfig().ef_search
    with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
        table = _table(vectors)
        write(Path(folder) / "index", _built(vectors, args.threads), table, LINEAGE)
        yesterday = PinIndex(Path(folder) / "index")
        for cosine in (0.99, 0.9, 0.7):
            noise = normalise(rng.standard_normal(vectors.shape).astype(np.float32))
            moved = normalise(cosine * vectors + np.sqrt(1 - cosine**2) * noise)
            today, kth = _table(moved), _exact(moved, queries)
            faiss.omp_set_num_threads(args.threads)  # a search has set it to 1
            clock = Clock()
            nodes = distinct(moved, IndexConfig())
            warm = warm_start(yesterday, today, nodes)
            warm_clock = clock.stop()
            clock = Clock()
            fresh = _built(moved, args.threads).index
            fresh_clock = clock.stop()
            found = [_search(index, nodes)(queries, width) for index in (warm, fresh)]
            rows.append(
                {
                    "cosine": cosine,
                    "warm_s": round(warm_clock.wall, 3),
                    "rebuild_s": round(fresh_clock.wall, 2),
                    "times_cheaper": round(fresh_clock.wall / warm_clock.wall),
                    "times_cheaper_cpu": round(fresh_clock.cpu / warm_clock.cpu),
                    "recall_warm": round(_recall(found[0], moved, queries, kth), 4),
                    "recall_rebuilt": round(_recall(found[1], moved, queries, kth), 4),
                }
            )
    return rows


CONTENDERS = {
    "ours": _ours,
    "hnswlib": _hnswlib,
    "hnswlib_careful": partial(_hnswlib, config=IndexConfig(ef_construction=80)),
    "hnswlib_wide": partial(_hnswlib, config=IndexConfig(links=32, ef_construction=40)),
    "usearch": _usearch,
}

if __name__ == "__main__":
    main()
