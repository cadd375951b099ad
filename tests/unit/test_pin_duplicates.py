"""Pins that share vectors, or nearly: nodes, expansion, dense clusters, exact search."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from feature_store.config import IndexConfig
from feature_store.contracts.errors import GuardFailed
from feature_store.index.build import Coded, Lineage, PinTable, build_checked, check, write
from feature_store.index.graph import build, distinct, hash_weights, normalise
from feature_store.index.index import PinIndex
from feature_store.index.search import expand

LINEAGE = Lineage(ds="2025-03-01", space_id="s", pool_digest="p", config_digest="c")
LATER = Lineage(ds="2025-03-02", space_id="s", pool_digest="q", config_digest="c")
CONFIG = IndexConfig()
# A graph that finds next to nothing, so that what comes after it is seen.
BLIND = IndexConfig(links=2, ef_construction=1, ef_search=1, ef_max=1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def table(vectors: np.ndarray) -> PinTable:
    """Pins named by position, with a column `parity`."""
    codes = np.arange(len(vectors), dtype=np.int32) % 2
    return PinTable(
        ids=np.array([f"pin{i:05d}" for i in range(len(vectors))], "S8"),
        vectors=normalise(vectors),
        metadata={"parity": Coded(values=("even", "odd"), codes=codes)},
    )


def shared(pins: int = 600, nodes: int = 40, seed: int = 0) -> tuple[PinTable, np.ndarray]:
    """Pins that take one of few vectors at random; and which one [N]."""
    which = np.random.default_rng(seed).integers(0, nodes, pins)
    return table(noise(nodes, 16, seed=seed)[which]), which


def clusters(count: int, size: int, spread: float) -> PinTable:
    """Dense clusters of 64 values; every fifth Pin has the vector of the one before it."""
    vectors = np.repeat(normalise(noise(count, 64)), size, 0)
    vectors = vectors + spread * noise(*vectors.shape, seed=1)
    vectors[1::5] = vectors[::5][: len(vectors[1::5])]
    return table(vectors[np.random.default_rng(2).permutation(len(vectors))])


def stored(folder, pins: PinTable, config: IndexConfig = CONFIG) -> PinIndex:
    users = noise(50, pins.vectors.shape[1], seed=9).astype(np.float32)
    write(folder, build_checked(pins, users, config, LINEAGE), pins, LINEAGE)
    return PinIndex(folder)


def agrees_with_exact_search(index: PinIndex, pins: PinTable, k: int, where=None) -> None:
    """Every query finds K different Pins (or all there are), with the K best scores."""
    users = noise(20, pins.vectors.shape[1], seed=5).astype(np.float32)
    may = np.arange(len(pins.ids)) if where is None else np.arange(len(pins.ids)) % 2 == 1
    ids, vectors = pins.ids[may], pins.vectors[may]
    hits, found = index.search(users, k, where), min(k, len(ids))
    best = -np.sort(-(users @ vectors.T), axis=1)[:, :found]
    np.testing.assert_allclose(hits.scores[:, :found], best, atol=5e-3)
    for query, names, scores in zip(users, hits.ids, hits.scores, strict=True):
        assert len(set(names[:found])) == found
        own = vectors[np.searchsorted(ids, names[:found].astype("S8"))] @ query
        np.testing.assert_allclose(scores[:found], own, atol=5e-3)
        assert (names[found:] == "").all()
        assert (scores[found:] == -np.inf).all()


def test_different_vectors_of_one_hash_are_different_nodes():
    weights = hash_weights(2)
    folded = np.zeros((3, 2), np.uint64)
    folded[1, 0], folded[1, 1:] = weights[1], -weights[:1]
    words = folded ^ (folded >> np.uint64(32))  # undoes the folding
    assert (folded @ weights == 0).all()
    nodes = distinct(words.view(np.float32), IndexConfig(storage="float32"))
    assert nodes.order.tolist() == [0, 2, 1]
    assert nodes.offsets.tolist() == [0, 2, 3]


@pytest.mark.parametrize("width", [3, 4, 5, 8])
@pytest.mark.parametrize("storage", ["float16", "float32", "int8"])
def test_narrow_vectors_share_a_node_only_when_they_are_equal(storage, width):
    vectors = np.random.default_rng(0).integers(-1, 2, (500, width)).astype(np.float32)
    nodes = distinct(vectors, IndexConfig(storage=storage))
    _, sizes = np.unique(vectors, axis=0, return_counts=True)
    assert sorted(np.diff(nodes.offsets)) == sorted(sizes)


@pytest.mark.parametrize("storage", ["float16", "float32", "int8"])
def test_nodes_are_the_distinct_stored_vectors_in_the_order_of_their_first_pins(storage):
    pins, which = shared()
    nodes = distinct(pins.vectors, IndexConfig(storage=storage))
    assert np.diff(nodes.offsets).tolist() == list(Counter(which.tolist()).values())
    groups = np.split(nodes.order, nodes.offsets[1:-1])
    assert all(len(set(which[g])) == 1 and (np.diff(g) > 0).all() for g in groups)
    first = np.array([g[0] for g in groups])
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(nodes.vectors, pins.vectors[first])


def test_vectors_that_the_storage_cannot_tell_apart_are_one():
    base = normalise(noise(1, 16))
    rounded = base.astype(np.float16).astype(np.float32)
    zero = np.where(np.arange(16) == 3, 0, rounded)
    pair = np.concatenate([rounded, rounded * (1 + 1e-5), zero, np.where(zero == 0, -0.0, zero)])
    assert len(distinct(pair.astype(np.float32), CONFIG).vectors) == 2
    assert len(distinct(pair.astype(np.float32), IndexConfig(storage="float32")).vectors) == 3


@pytest.mark.parametrize("k", [1, 10, 40, 41, 599, 600, 700])
@pytest.mark.parametrize("where", [None, {"parity": "odd"}])
def test_a_search_counts_pins_not_vectors(tmp_path, k, where):
    pins, _ = shared()
    index = stored(tmp_path / "i", pins)
    assert (index.manifest.pins, index.manifest.distinct) == (600, 40)
    agrees_with_exact_search(index, pins, k, where)


@pytest.mark.parametrize("k", [1, 10, 300, 301])
def test_all_pins_may_be_the_same(tmp_path, k):
    pins = table(np.repeat(noise(1, 16), 300, 0))
    index = stored(tmp_path / "i", pins)
    assert (index.manifest.distinct, index.manifest.recall_at_10) == (1, 1.0)
    agrees_with_exact_search(index, pins, k)
    agrees_with_exact_search(index, pins, k, {"parity": "odd"})


def test_a_filter_that_keeps_few_of_many_nodes_is_exact(tmp_path):
    vectors = noise(1000, 16)
    vectors[1::2] = vectors[1]  # odd Pins share one vector, even ones have their own
    pins = table(vectors)
    agrees_with_exact_search(stored(tmp_path / "i", pins), pins, 7, {"parity": "odd"})


def test_ids_and_vectors_belong_together_after_a_reload(tmp_path):
    pins, _ = shared()
    stored(tmp_path / "i", pins)
    index, asked = PinIndex(tmp_path / "i"), np.random.default_rng(1).permutation(600)
    names = [i.decode() for i in pins.ids[asked]]
    rows = index.rows_of([*names, "nobody"])
    assert rows[-1] == -1
    assert [i.decode() for i in index.row_ids[rows[:-1]]] == names
    np.testing.assert_allclose(index.vectors(rows[:-1]), pins.vectors[asked], atol=1e-3)
    odd = {i.decode() for i in index.row_ids[index.kept({"parity": "odd"})]}
    assert odd == {i.decode() for i in pins.ids[1::2]}


def test_expansion_takes_kept_pins_of_ranked_nodes_until_there_are_enough():
    offsets = np.array([0, 3, 4, 8])
    ranked = np.array([[2, 0, 1], [1, -1, -1]])
    rows, ranks = expand(ranked, offsets, 6)
    assert rows.tolist() == [[4, 5, 6, 7, 0, 1], [3, -1, -1, -1, -1, -1]]
    assert ranks.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
    rows, ranks = expand(ranked, offsets, 3, kept=np.array([1, 2, 3, 7]))
    assert rows.tolist() == [[7, 1, 2], [3, -1, -1]]
    assert ranks[0].tolist() == [0, 1, 1]
    rows, _ = expand(np.zeros((2, 0), np.int64), offsets, 2)
    assert rows.tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(("count", "size", "spread"), [(20, 200, 1e-3), (20, 200, 1e-2)])
def test_dense_clusters_are_reached_by_the_graph(tmp_path, count, size, spread):
    pins = clusters(count, size, spread)
    users = noise(200, 64, seed=3).astype(np.float32)
    built = build_checked(pins, users, replace(CONFIG, exact_below=0), LINEAGE)
    assert len(built.nodes.vectors) == 0.8 * count * size
    assert built.recall_at_10 >= CONFIG.recall_at_10


def test_pins_far_from_the_crowd_are_reached_by_the_graph():
    # Nearly all Pins point one way; users look for the few that do not.
    crowd = np.eye(1, 64) + 3e-3 * noise(1500, 64)
    few = np.eye(1, 64) + noise(250, 64, seed=1)
    pins = table(np.concatenate([crowd, few]))
    users = (noise(200, 64, seed=2) - 4 * np.eye(1, 64)).astype(np.float32)
    built = build_checked(pins, users, replace(CONFIG, exact_below=0), LINEAGE)
    assert built.recall_at_10 >= CONFIG.recall_at_10


def test_a_graph_that_fails_is_built_again_with_more_links():
    pins = table(noise(3000, 64))
    users = noise(100, 64, seed=3).astype(np.float32)
    sparse = IndexConfig(links=4, ef_construction=10, ef_search=64, ef_max=64, recall_at_10=0.5)
    nodes = distinct(pins.vectors, sparse)
    once, _ = check(build(nodes.vectors, sparse), pins, nodes, users, sparse)
    strict = replace(sparse, recall_at_10=once + 0.01, exact_below=0)
    assert build_checked(pins, users, strict, LINEAGE).recall_at_10 > once + 0.01


def test_where_no_graph_will_do_few_pins_are_searched_exactly(tmp_path):
    pins, _ = shared(2000, 1000)
    index = stored(tmp_path / "i", pins, BLIND)
    manifest = index.manifest
    assert (manifest.exact, manifest.ef_search, manifest.recall_at_10) == (True, 0, 1.0)
    for where in (None, {"parity": "odd"}):
        agrees_with_exact_search(index, pins, 20, where)
    rows = index.rows_of(["pin00007", "pin01999"])
    np.testing.assert_allclose(index.vectors(rows), pins.vectors[[7, 1999]], atol=1e-3)
    # The next day has no graph to start from, and is not exact because this day was.
    users = noise(50, 16, seed=9).astype(np.float32)
    tomorrow = build_checked(pins, users, CONFIG, LATER, index)
    assert tomorrow.built_ds == LATER.ds
    assert tomorrow.ef_search > 0


def test_exactness_has_a_bound_and_must_reach_the_recall_too():
    pins, _ = shared(2000, 1000)
    nodes = len(distinct(pins.vectors, BLIND).vectors)
    users = noise(50, 16, seed=9).astype(np.float32)
    assert build_checked(pins, users, replace(BLIND, exact_below=nodes + 1), LINEAGE).ef_search == 0
    with pytest.raises(GuardFailed, match="misses too many"):
        build_checked(pins, users, replace(BLIND, exact_below=nodes), LINEAGE)
    # Eight bits cannot rank the members of a dense cluster, with or without a graph.
    coarse = replace(BLIND, storage="int8", recall_at_10=0.999)
    with pytest.raises(GuardFailed, match="misses too many") as error:
        build_checked(clusters(20, 200, 1e-2), noise(50, 64).astype(np.float32), coarse, LINEAGE)
    assert "at efSearch 0" in error.value.found


def test_a_warm_start_needs_the_same_pins_to_share_vectors(tmp_path):
    pins, which = shared()
    yesterday = stored(tmp_path / "i", pins)
    users = noise(50, 16, seed=9).astype(np.float32)
    moved = noise(40, 16) + 0.01 * noise(40, 16, seed=7)
    together = table(moved[which])
    built = build_checked(together, users, CONFIG, LATER, yesterday)
    assert built.built_ds == LINEAGE.ds
    write(tmp_path / "j", built, together, LATER)
    agrees_with_exact_search(PinIndex(tmp_path / "j"), together, 50)
    one_left = table(moved[which] + 0.1 * (np.arange(600) == 5)[:, None])
    assert build_checked(one_left, users, CONFIG, LATER, yesterday).built_ds == LATER.ds
    two_met = table(moved[np.where(which == 3, 4, which)])
    assert build_checked(two_met, users, CONFIG, LATER, yesterday).built_ds == LATER.ds


def test_duplicates_leave_the_bytes_reproducible(tmp_path):
    first, second = (stored(tmp_path / name, shared()[0]) for name in "ab")
    assert first.manifest.files == second.manifest.files
