"""The Pin index: recall, tiny sizes, filters, warm starts, and what happens when it breaks."""

import resource

import faiss
import numpy as np
import pytest

from feature_store.config import IndexConfig
from feature_store.contracts.errors import GuardFailed, InputError, ManifestCorrupt, StoreError
from feature_store.index.build import Built, Coded, Lineage, PinTable, build_checked, check, write
from feature_store.index.graph import build, distinct, normalise, on_storage
from feature_store.index.index import PinIndex
from feature_store.index.search import NodeSearch

LINEAGE = Lineage(ds="2025-03-01", space_id="s", pool_digest="p", config_digest="c")
LATER = Lineage(ds="2025-03-02", space_id="s", pool_digest="q", config_digest="c")
CONFIG = IndexConfig()


def pins(count: int, dim: int = 16, seed: int = 0) -> PinTable:
    """Random Pins around a few centres, two metadata columns: one common, one rare value."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, dim))
    vectors = centres[rng.integers(0, 8, count)] + 0.5 * rng.standard_normal((count, dim))
    codes = np.arange(count, dtype=np.int32)
    return PinTable(
        ids=np.sort(np.array([f"pin{i:05d}" for i in range(count)], np.bytes_)).astype("S8"),
        vectors=normalise(vectors),
        metadata={
            "parity": Coded(values=("even", "odd"), codes=codes % 2),
            "rank": Coded(values=("rare", "common"), codes=np.minimum(codes // 10, 1)),
        },
        numbers={"age": ages(count)},
    )


def ages(count: int) -> np.ndarray:
    """Days 0 to 99 in turn, unknown for each eleventh Pin."""
    number = np.arange(count)
    return np.where(number % 11 == 0, np.nan, number % 100).astype(np.float32)


def queries(count: int = 50, dim: int = 16) -> np.ndarray:
    return pins(count, dim, seed=1).vectors * 3


def stored(folder, table: PinTable, config: IndexConfig = CONFIG, users=None) -> PinIndex:
    users = queries() if users is None else users
    write(folder, build_checked(table, users, config, LINEAGE), table, LINEAGE)
    return PinIndex(folder)


def exact(table: PinTable, query: np.ndarray, k: int, rows=None) -> list[str]:
    kept = np.arange(len(table.ids)) if rows is None else rows
    order = np.argsort(-(table.vectors[kept] @ query), kind="stable")[:k]
    return [i.decode() for i in table.ids[kept[order]]]


@pytest.mark.parametrize("storage", ["float16", "float32", "int8"])
def test_finds_nearly_what_exact_search_finds(tmp_path, storage):
    table = pins(2000)
    # Wide enough that what is missed is the storage's doing, not luck with the sampled queries.
    index = stored(tmp_path / "i", table, IndexConfig(storage=storage, ef_search=128))
    hits = index.search(queries(), 10)
    truth = [exact(table, q, 10) for q in queries()]
    overlap = np.mean([len(set(h) & set(t)) / 10 for h, t in zip(hits.ids, truth, strict=True)])
    assert overlap > (0.85 if storage == "int8" else 0.95)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert index.manifest.recall_at_10 >= 0.95


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9])
def test_tiny_pools_are_searched_whole(tmp_path, count):
    table = pins(count)
    index = stored(tmp_path / "i", table)
    hits = index.search(queries(3), 10)
    assert hits.ids.shape == hits.scores.shape == (3, 10)
    for row, query in zip(hits.ids, queries(3), strict=True):
        assert sorted(row[row != ""]) == sorted(exact(table, query, count))
    assert (hits.scores[hits.ids == ""] == -np.inf).all()


NUMBER, AGE = np.arange(2000), ages(2000)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"rank": "rare"}, NUMBER < 10),
        ({"parity": "odd"}, NUMBER % 2 == 1),
        ({"age": (None, 30)}, AGE <= 30),
        ({"age": (30, 40.0)}, (AGE >= 30) & (AGE <= 40)),
        ({"age": (97, None), "parity": "even"}, AGE == 98),
        ({"age": (None, None)}, ~np.isnan(AGE)),
    ],
)
def test_filters_keep_only_what_matches_and_find_the_best_of_it(tmp_path, where, expected):
    table = pins(2000)
    index = stored(tmp_path / "i", table)
    matching = np.flatnonzero(expected)
    hits = index.search(queries(20), 5, where)
    assert set(hits.ids.ravel()) <= {i.decode() for i in table.ids[matching]}
    truth = [exact(table, q, 5, matching) for q in queries(20)]
    overlap = np.mean([len(set(h) & set(t)) / 5 for h, t in zip(hits.ids, truth, strict=True)])
    assert overlap > 0.95


@pytest.mark.parametrize("topics", [2, 3, 4])
def test_a_filter_by_what_vectors_mean_finds_the_best_far_from_the_user(tmp_path, topics):
    """Every topic is a cluster of its own, and users ask for the one that they are not near to."""
    rng = np.random.default_rng(0)
    centres = normalise(rng.standard_normal((topics, 32)))
    topic = np.repeat(np.arange(topics, dtype=np.int32), 1500)
    table = PinTable(
        ids=np.array([f"pin{i:05d}" for i in range(len(topic))], "S8"),
        vectors=normalise(centres[topic] + 0.1 * rng.standard_normal((len(topic), 32))),
        metadata={"topic": Coded(values=tuple(map(str, range(topics))), codes=topic)},
    )
    users = normalise(centres[:1] + 0.1 * rng.standard_normal((30, 32)))
    index = stored(tmp_path / "i", table, users=users)
    for wanted in range(topics):
        for k in (10, 100):
            hits = index.search(users, k, {"topic": str(wanted)})
            rows = np.flatnonzero(topic == wanted)
            truth = [exact(table, user, k, rows) for user in users]
            found = [len(set(h) & set(t)) / k for h, t in zip(hits.ids, truth, strict=True)]
            assert np.mean(found) > 0.95


def test_filters_that_keep_nothing_find_nothing(tmp_path):
    index = stored(tmp_path / "i", pins(100))
    for where in ({"rank": "rare", "parity": "no such"}, {"age": (31.5, 31.7)}):
        assert (index.search(queries(2), 3, where).ids == "").all()


@pytest.mark.parametrize("where", [{"advertiser": "a"}, {"age": "30"}, {"parity": (0, 1)}])
def test_a_filter_that_the_index_does_not_have_is_refused(tmp_path, where):
    index = stored(tmp_path / "i", pins(100))
    with pytest.raises(InputError, match="cannot be filtered by") as error:
        index.search(queries(2), 3, where)
    assert "a value of parity rank, or (least, most) of age" in str(error.value)


def test_a_query_of_another_width_is_refused(tmp_path):
    with pytest.raises(InputError, match="another width"):
        stored(tmp_path / "i", pins(10)).search(np.ones(15), 3)


def test_rows_of_finds_ids_and_vectors_are_the_stored_ones(tmp_path):
    table = pins(300)
    index = stored(tmp_path / "i", table)
    rows = index.rows_of(["pin00007", "nope", "pin00299"])
    assert rows.tolist() == [7, -1, 299]
    np.testing.assert_allclose(index.vectors(rows[[0, 2]]), table.vectors[[7, 299]], atol=1e-3)
    assert index.vectors(np.zeros(0, np.int64)).shape == (0, 16)


def test_ef_search_is_raised_until_the_recall_is_reached():
    table = pins(3000, dim=64)
    weak = IndexConfig(links=8, ef_construction=16, ef_search=1, ef_max=2048)
    users = queries(100, 64)
    graph = build(table.vectors, weak)
    recall, ef = check(graph, table, distinct(table.vectors, weak), users, weak)
    assert recall >= weak.recall_at_10
    assert ef > 1


def test_a_graph_that_is_inserted_in_pieces_finds_every_vector_by_itself():
    # More nodes than go into the graph at once; each is its own nearest, and not a shifted one's.
    rng = np.random.default_rng(0)
    vectors = normalise(rng.standard_normal((10_000, 8)))
    search = NodeSearch(build(vectors, CONFIG))
    _, nodes = search.search(vectors, 1, 32)
    assert (nodes[:, 0] == np.arange(len(vectors))).mean() > 0.99


@pytest.mark.parametrize(("decay", "least"), [(0.0, 0.6), (0.5, 0.97)])
def test_wide_vectors_keep_their_neighbours_however_their_variance_is_spread(decay, least):
    # Where every dimension counts alike, links chosen in half of them find 0.45.
    rng = np.random.default_rng(0)
    spread = np.arange(1, 129) ** -decay
    vectors = normalise(rng.standard_normal((20_300, 128)) * spread)
    asked, kept = vectors[:200], vectors[200:]
    _, nodes = NodeSearch(build(kept, CONFIG)).search(asked, 10, 128)
    truth = np.argsort(-(asked @ kept.T), axis=1)[:, :10]
    found = [len(set(n) & set(t)) / 10 for n, t in zip(nodes, truth, strict=True)]
    assert np.mean(found) > least


def test_a_narrow_search_reaches_every_island():
    # Walking down the levels ends on the wrong one for some queries, and ten candidates do not
    # lead off an island: the search has to begin on the right one.
    rng = np.random.default_rng(0)
    centres = normalise(rng.standard_normal((60, 32)))
    vectors = normalise(np.repeat(centres, 150, axis=0) + 0.02 * rng.standard_normal((9000, 32)))
    queries = vectors[::9] + np.float32(0.001)
    _, nodes = NodeSearch(build(vectors, CONFIG)).search(queries, 1, 10)
    assert (nodes[:, 0] // 150 == np.arange(0, 9000, 9) // 150).all()


def test_a_recall_that_cannot_be_reached_fails_the_publish():
    table = pins(3000, dim=64)
    weak = IndexConfig(
        links=2, ef_construction=2, ef_search=1, ef_max=1, recall_at_10=0.999, exact_below=0
    )
    with pytest.raises(GuardFailed, match="misses too many") as error:
        build_checked(table, queries(100, 64), weak, LINEAGE)
    assert "recall@10 >= 0.999" in error.value.expected
    assert "efSearch 1" in error.value.found


def drifted(table: PinTable, size: float) -> PinTable:
    noise = np.random.default_rng(5).standard_normal(table.vectors.shape)
    moved = normalise(table.vectors + size * noise)
    return PinTable(ids=table.ids, vectors=moved, metadata=table.metadata)


def test_a_warm_start_keeps_the_graph_and_finds_the_new_vectors(tmp_path):
    table = pins(2000)
    yesterday = stored(tmp_path / "i", table)
    today = drifted(table, 0.01)
    built = build_checked(today, queries(), CONFIG, LATER, yesterday)
    assert built.built_ds == LINEAGE.ds
    write(tmp_path / "j", built, today, LATER)
    index = PinIndex(tmp_path / "j")
    assert index.manifest.built_ds == LINEAGE.ds
    np.testing.assert_allclose(index.vectors(np.arange(2000)), today.vectors, atol=1e-3)
    # Yesterday's files are as they were: readers still use them.
    np.testing.assert_allclose(yesterday.vectors(np.arange(2000)), table.vectors, atol=1e-3)


def test_a_warm_start_that_fails_its_check_is_rebuilt(tmp_path):
    table = pins(2000, dim=32)
    yesterday = stored_with(tmp_path / "i", table, queries(50, 32))
    scrambled = PinTable(
        ids=table.ids,
        vectors=normalise(np.random.default_rng(9).standard_normal((2000, 32))),
        metadata={},
    )
    strict = IndexConfig(ef_search=16, ef_max=16, recall_at_10=0.8)
    loose = IndexConfig(ef_search=16, ef_max=16, recall_at_10=0.01)
    users = queries(50, 32)
    assert build_checked(scrambled, users, loose, LATER, yesterday).built_ds == LINEAGE.ds
    assert build_checked(scrambled, users, strict, LATER, yesterday).built_ds == LATER.ds


def stored_with(folder, table: PinTable, users: np.ndarray) -> PinIndex:
    write(folder, build_checked(table, users, CONFIG, LINEAGE), table, LINEAGE)
    return PinIndex(folder)


def test_other_pins_are_never_warm_started(tmp_path):
    yesterday = stored(tmp_path / "i", pins(200))
    assert build_checked(pins(201), queries(), CONFIG, LATER, yesterday).built_ds == LATER.ds


def test_a_graph_built_elsewhere_is_served_from_the_configured_storage(tmp_path):
    # What happens to a graph that a GPU built: the type that CAGRA is copied to, filled by the CPU;
    # its float32 storage is replaced, its links are kept.
    table = pins(1500)
    graph = faiss.IndexHNSWCagra(16, CONFIG.links, faiss.METRIC_INNER_PRODUCT)
    graph.base_level_only = False
    graph.add(table.vectors)
    index, nodes = on_storage(graph, table.vectors, CONFIG), distinct(table.vectors, CONFIG)
    assert check(index, table, nodes, queries(), CONFIG)[0] >= 0.95
    built = Built(index=index, nodes=nodes, built_ds="2025-03-01", recall_at_10=1.0, ef_search=64)
    write(tmp_path / "i", built, table, LINEAGE)
    hits = PinIndex(tmp_path / "i").search(queries(), 10)
    _, rows = NodeSearch(graph).search(queries(), 10, 64)
    same = [
        len({table.ids[r].decode() for r in a} & set(b))
        for a, b in zip(rows, hits.ids, strict=True)
    ]
    assert np.mean(same) > 9.5


def test_small_graphs_have_the_same_bytes_every_time(tmp_path):
    first, second = (stored(tmp_path / name, pins(500)) for name in "ab")
    assert first.manifest.files == second.manifest.files


def test_a_damaged_or_unfinished_folder_is_refused(tmp_path):
    folder = stored(tmp_path / "i", pins(50)).folder
    graph = folder / "graph.faiss"
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(StoreError, match="is damaged"):
        PinIndex(folder)
    (folder / "index.json").write_text("{")
    with pytest.raises(ManifestCorrupt):
        PinIndex(folder)
    (folder / "index.json").unlink()
    with pytest.raises(StoreError, match="no finished Pin index"):
        PinIndex(folder)


@pytest.fixture
def small_quota():
    """A real limit of the operating system on the size of a file this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path, small_quota):
    table = pins(2000)
    built = build_checked(table, queries(), CONFIG, LINEAGE)
    with pytest.raises(StoreError, match="could not be written") as error:
        write(tmp_path / "i", built, table, LINEAGE)
    assert "free space" in error.value.hint
    assert list(tmp_path.iterdir()) == []
