"""Arrow tables to NumPy batches: encodings, joins, shards, order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.datasets import Feature
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.buckets import stable_hash
from feature_store.lake.schemas import pack
from feature_store.reading.counts import Counting
from feature_store.reading.encoding import encode
from feature_store.reading.examples import DayExamples, Order, permutation
from feature_store.reading.summaries import NumericSummary, summarize
from tests.model_fixtures.world import FIRST, World, next_day

ROWS = 300
COUNTING = Counting(smoothing=10.0, first_ds=FIRST)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("home"))
    for ds in (FIRST, next_day(FIRST)):
        world.add_day(ds, rows=ROWS)
    return world


@pytest.fixture(scope="module")
def day(world):
    return DayExamples(world.lake, world.spec, FIRST, "ctr", COUNTING)


def feature(kind, **sizes):
    return Feature(name="x", scope="user", kind=kind, meaning="x", **sizes)


def slot(text, cardinality):
    return 1 + int(stable_hash(pa.array([text]))[0]) % (cardinality - 1)


def test_categorical_is_hashed_and_zero_where_missing():
    found = encode(feature("categorical", cardinality=10), pa.array(["a", None, "b", "a"]))
    assert found.tolist() == [slot("a", 10), 0, slot("b", 10), slot("a", 10)]


def test_numeric_is_nan_where_missing():
    found = encode(feature("numeric"), pa.array([1.5, None], pa.float32()))
    np.testing.assert_array_equal(found, np.array([1.5, np.nan], np.float32))


def test_a_sequence_keeps_the_newest_elements_newest_first():
    column = pa.array([["a", "b", "c"], [], ["d"]])
    found = encode(feature("sequence", cardinality=100, max_len=2), column)
    expected = [[slot("c", 100), slot("b", 100)], [0, 0], [slot("d", 100), 0]]
    assert found.tolist() == expected


def test_a_list_keeps_its_first_elements():
    column = pa.array([["skip"], ["a", "b", "c"], []])[1:]
    found = encode(feature("list", cardinality=100, max_len=2), column)
    assert found.tolist() == [[slot("a", 100), slot("b", 100)], [0, 0]]


def test_lists_that_are_all_empty():
    column = pa.array([[], []], pa.list_(pa.string()))
    assert encode(feature("list", max_len=3), column).tolist() == [[0] * 3] * 2


def test_an_embedding_is_unpacked():
    vectors = np.arange(6, dtype="<f4").reshape(2, 3)
    np.testing.assert_array_equal(encode(feature("embedding", dim=3), pack(vectors)), vectors)


def test_events_meet_the_features_of_their_entities(world, day):
    (batch,) = day.batches(Order(batch_rows=ROWS, distinct=False))
    events = world.lake.read(world.spec.events_table(), FIRST)
    users = world.lake.read(world.spec.users_table(), FIRST).to_pylist()
    clicks = {row["user_id"]: row["user_clicks"] for row in users}
    expected = [clicks[u] for u in events.column("user_id").to_pylist()]
    np.testing.assert_array_equal(batch["user_clicks"], np.array(expected, np.float32))
    hashes = stable_hash(events.column("pin_id")).view(np.int64)
    np.testing.assert_array_equal(batch["key:pin"], hashes)
    labels = events.column("click").to_pylist()
    expected = np.array([np.nan if x is None else x for x in labels], np.float32)
    np.testing.assert_array_equal(batch["label:click"], expected)
    assert set(np.unique(batch["surface"])) == {1, 2}


def test_an_entity_stands_once_in_a_batch_and_events_point_to_it(day):
    plain = list(day.batches(Order(batch_rows=64, seed=3, distinct=False)))
    shared = list(day.batches(Order(batch_rows=64, seed=3)))
    for expected, found in zip(plain, shared, strict=True):
        rows = {e: found.pop(f"row:{e}") for e in ("user", "pin")}
        assert all(len(np.unique(at)) == at.max() + 1 for at in rows.values())
        for entity, at in rows.items():
            for name in day.entities[entity].take(np.arange(1)):
                assert len(found[name]) == at.max() + 1
                found[name] = found[name][at]
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)


def test_an_unknown_entity_has_no_features(day):
    users = day.entities["user"]
    rows = users.rows_of(stable_hash(pa.array(["nobody", "user3"])))
    assert rows[0] == len(users)
    found = users.take(rows[:1])
    assert np.isnan(found["user_clicks"][0])
    assert found["country"][0] == 0
    assert not found["seen_pins"][0].any()


def test_a_table_that_names_an_entity_twice_is_refused(tmp_path):
    world = World(tmp_path)
    world.add_day(FIRST, rows=10)
    table = world.spec.users_table()
    users = world.lake.read(table, FIRST)
    world.lake.overwrite(table, FIRST, pa.concat_tables([users, users.slice(0, 1)]))
    with pytest.raises(ContractViolation, match="twice"):
        DayExamples(world.lake, world.spec, FIRST, "ctr", COUNTING)


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(1, 7), chunk=st.integers(1, 120), batch=st.integers(1, 70))
def test_shards_partition_the_rows(day, ranks, chunk, batch):
    seen = [
        b["ts"]
        for rank in range(ranks)
        for b in day.batches(Order(batch_rows=batch, chunk_rows=chunk, shard=(rank, ranks)))
    ]
    (whole,) = day.batches(Order(batch_rows=ROWS))
    np.testing.assert_array_equal(np.concatenate(seen), whole["ts"])


def test_a_seed_permutes_the_same_way_every_time(day):
    def read(seed):
        order = Order(batch_rows=64, chunk_rows=100, seed=seed)
        return np.concatenate([b["ts"] for b in day.batches(order)])

    np.testing.assert_array_equal(read(1), read(1))
    assert not np.array_equal(read(1), read(2))
    np.testing.assert_array_equal(np.sort(read(1)), np.sort(read(2)))


def runs(keys):
    """How many stretches of equal keys there are."""
    return int((keys[1:] != keys[:-1]).sum()) + bool(len(keys))


@settings(max_examples=50, deadline=None)
@given(
    users=st.lists(st.integers(0, 9), max_size=60).map(lambda x: np.array(x, np.int64)),
    together=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_events_of_a_user_stay_together_up_to_a_bound(users, together, seed):
    at = permutation(users, together, np.random.default_rng(seed))
    assert sorted(at) == list(range(len(users)))
    again = permutation(users, together, np.random.default_rng(seed))
    np.testing.assert_array_equal(at, again)
    # Two stretches of a user may meet by chance; there are never more than the bound makes.
    _, sizes = np.unique(users, return_counts=True)
    assert runs(users[at]) <= np.ceil(sizes / together).sum()
    for user in np.unique(users):
        mine = at[users[at] == user]
        assert set(mine) == set(np.flatnonzero(users == user))


def test_users_stay_together_in_the_batches_of_a_day(day):
    def users_of_a_batch(together):
        order = Order(batch_rows=64, seed=5, together=together)
        return np.mean([len(np.unique(b["key:user"])) for b in day.batches(order)])

    assert users_of_a_batch(8) < users_of_a_batch(1) / 2


def test_halves_of_a_day_partition_its_rows(day):
    middle = day.middle_minute()
    sizes = []
    for minutes in ((0, middle), (middle, 1440)):
        batches = list(day.batches(Order(batch_rows=64, minutes=minutes)))
        sizes.append(sum(len(b["ts"]) for b in batches))
    assert sum(sizes) == ROWS
    assert abs(sizes[0] - ROWS / 2) < ROWS / 20


def test_random_pins_are_drawn_anew_for_every_batch_and_rank(day):
    def drawn(rank):
        order = Order(batch_rows=64, seed=5, shard=(rank, 2), random_pins=40)
        return [b["random:key:pin"] for b in day.batches(order)]

    first, second = drawn(0), drawn(1)
    assert all(len(keys) == 40 for keys in first)
    assert np.array_equal(first, drawn(0))
    assert len({tuple(keys) for keys in (*first, *second)}) == len(first) + len(second)


def test_random_pins_are_uniform_over_the_table_and_bring_their_own_features(day):
    order = Order(batch_rows=ROWS, seed=5, random_pins=6000)
    (batch,) = day.batches(order)
    keys, counts = np.unique(batch["random:key:pin"], return_counts=True)
    assert len(keys) == 30
    assert counts.min() > 140
    assert counts.max() < 270
    clicks = batch["pin_clicks"][batch["row:pin"]]
    shown = dict(zip(batch["key:pin"], clicks, strict=True))
    known = np.isin(batch["random:key:pin"], list(shown))
    expected = [shown[k] for k in batch["random:key:pin"][known]]
    np.testing.assert_array_equal(batch["random:pin_clicks"][known], expected)


def test_an_empty_batch_has_the_names_and_types_of_a_real_one(day):
    (real,) = day.batches(Order(batch_rows=ROWS, random_pins=3))
    empty = day.empty()
    assert {k: (v.dtype, v.shape[1:]) for k, v in empty.items()} == {
        k: (v.dtype, v.shape[1:]) for k, v in real.items()
    }
    assert {len(v) for v in empty.values()} == {0}


def test_memory_is_bounded_by_a_chunk(day, monkeypatch):
    sizes = []
    original = DayExamples._encode

    def spy(self, chunk):
        sizes.append(len(chunk))
        return original(self, chunk)

    monkeypatch.setattr(DayExamples, "_encode", spy)
    stream = day.batches(Order(batch_rows=16, chunk_rows=50))
    next(stream)
    assert sizes == [50]
    rest = list(stream)
    assert max(sizes) == 50
    assert max(len(b["ts"]) for b in rest) == 16


def test_summaries_are_those_of_all_days_together(world):
    days = (FIRST, next_day(FIRST))
    found = summarize(world.lake, world.spec, days, "ctr", known=days)
    users = [world.lake.read(world.spec.users_table(), ds) for ds in days]
    values = np.concatenate([t.column("user_rate").to_numpy() for t in users])
    known = values[~np.isnan(values)].astype(np.float64)
    rate = found["user_rate"]
    assert (rate.minimum, rate.maximum) == (known.min(), known.max())
    assert rate.std == pytest.approx(known.std(), rel=1e-9)
    events = [world.lake.read(world.spec.events_table(), ds) for ds in days]
    clicks = [x for t in events for x in t.column("click").to_pylist() if x is not None]
    assert found["click"].mean == pytest.approx(np.mean(clicks))


def test_a_summary_of_nothing_has_no_spread():
    summary = NumericSummary()
    summary.add(np.full(3, np.nan, np.float32))
    assert (summary.mean, summary.std) == (0.0, 0.0)
