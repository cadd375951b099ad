"""The arithmetic of dedup and merge, on answers worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from feature_store.config import AggregationConfig
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import ContractViolation, SpaceMismatch
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.embeddings.aggregate import MergeCounts, dedup, merge
from feature_store.lake.schemas import arrow_schema, unpack
from tests.aggregation_fixtures import FIRST, raw_rows

DAYS = [shift_day(FIRST, i) for i in range(4)]
EMPTY_POOL = arrow_schema(pool_table("ctr", "user")).empty_table()
EMPTY_DAILY = arrow_schema(daily_table("ctr", "user")).empty_table()


def one_entity(vector: list[float], ds: str, space: str = "space-1") -> pa.Table:
    return dedup(raw_rows(["u"], [0], [vector], ds=ds, space=space), 2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AggregationConfig(w=0.8), [[1, 0], [0.8, 0.2], [0.8, 0.2], [0.44, 0.16]]),
        (AggregationConfig(w=0.5), [[1, 0], [0.5, 0.5], [0.5, 0.5], [-0.25, 0.25]]),
        (AggregationConfig(heuristic="ap"), [[1, 0], [0.5, 0.5], [0.5, 0.5], [-0.5, 0.5]]),
        (AggregationConfig(heuristic="acc"), [[1, 0], [0, 1], [0, 1], [-1, 0]]),
    ],
)
def test_known_answers_with_a_gap(config: AggregationConfig, expected: list[list[float]]) -> None:
    dailies = {0: [1.0, 0.0], 1: [0.0, 1.0], 3: [-1.0, 0.0]}
    pool = EMPTY_POOL
    for i, ds in enumerate(DAYS):
        daily = one_entity(dailies[i], ds) if i in dailies else EMPTY_DAILY
        pool, _ = merge(pool, daily, ds, config, 2)
        np.testing.assert_allclose(unpack(pool["embedding"], 2)[0], expected[i], atol=1e-7)
    assert pool["updates"].to_pylist() == [3]
    assert pool["last_daily"].to_pylist() == [DAYS[3]]


def test_the_weights_of_the_average_sum_to_one_in_float32() -> None:
    config = AggregationConfig(w=0.8)
    pool, _ = merge(EMPTY_POOL, one_entity([0.1, -0.7], DAYS[0]), DAYS[0], config, 2)
    for ds in (shift_day(FIRST, i) for i in range(1, 366)):
        pool, _ = merge(pool, one_entity([0.1, -0.7], ds), ds, config, 2)
    np.testing.assert_allclose(unpack(pool["embedding"], 2)[0], [0.1, -0.7], rtol=5e-7)


def test_counts_say_what_became_of_each_entity() -> None:
    config = AggregationConfig(inactive_days=1)
    first = dedup(raw_rows(["a", "b", "c"], [0, 0, 0], np.eye(3), ds=DAYS[0]), 3)
    second = dedup(raw_rows(["b", "aa"], [0, 0], np.eye(3)[:2], ds=DAYS[1]), 3)
    third = dedup(raw_rows(["b"], [0], np.eye(3)[:1], ds=DAYS[2]), 3)
    pool, counts = merge(EMPTY_POOL, first, DAYS[0], config, 3)
    assert counts == MergeCounts(new=3)
    pool, counts = merge(pool, second, DAYS[1], config, 3)
    assert counts == MergeCounts(updated=1, new=1, carried=2)
    pool, counts = merge(pool, third, DAYS[2], config, 3)
    assert counts == MergeCounts(updated=1, carried=1, pruned=2)
    assert pool["entity_id"].to_pylist() == ["aa", "b"]


def test_an_entity_is_kept_on_its_last_day_and_dropped_on_the_next() -> None:
    config = AggregationConfig(inactive_days=90)
    pool, _ = merge(EMPTY_POOL, one_entity([1.0, 0.0], FIRST), FIRST, config, 2)
    kept, _ = merge(pool, EMPTY_DAILY, shift_day(FIRST, 90), config, 2)
    dropped, counts = merge(pool, EMPTY_DAILY, shift_day(FIRST, 91), config, 2)
    assert (len(kept), len(dropped), counts.pruned) == (1, 0, 1)


def test_an_inactive_entity_that_returns_on_the_day_is_not_pruned() -> None:
    config = AggregationConfig(inactive_days=1)
    later = shift_day(FIRST, 30)
    pool, _ = merge(EMPTY_POOL, one_entity([1.0, 0.0], FIRST), FIRST, config, 2)
    pool, counts = merge(pool, one_entity([0.0, 1.0], later), later, config, 2)
    assert counts == MergeCounts(updated=1)
    assert pool["updates"].to_pylist() == [2]


def test_two_spaces_never_meet() -> None:
    config = AggregationConfig()
    pool, _ = merge(EMPTY_POOL, one_entity([1.0, 0.0], DAYS[0], "old"), DAYS[0], config, 2)
    with pytest.raises(SpaceMismatch, match="new and old"):
        merge(pool, one_entity([1.0, 0.0], DAYS[1], "new"), DAYS[1], config, 2)


def test_dedup_keeps_the_last_by_time_then_by_event() -> None:
    ids = ["b", "a", "a", "a", "b"]
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2) + 1
    daily = dedup(raw_rows(ids, [5, 9, 9, 1, 2], vectors), 2)
    assert daily["entity_id"].to_pylist() == ["a", "b"]
    np.testing.assert_array_equal(unpack(daily["embedding"], 2), vectors[[2, 0]])
    assert daily["events"].to_pylist() == [3, 2]


def test_intraday_cosine_compares_first_and_last() -> None:
    raw = raw_rows(["a", "a", "a", "b"], [0, 1, 2, 0], [[1, 0], [0, 1], [-2, 0], [1, 1]])
    assert dedup(raw, 2)["intraday_cosine"].to_pylist() == [-1.0, None]


def test_dedup_reads_float16() -> None:
    raw = raw_rows(["a"], [0], [[0.5, 2.0]])
    half = pa.array([np.array([0.5, 2.0], "<f2").tobytes()], pa.binary())
    raw = raw.set_column(3, raw.schema.field("embedding"), half)
    assert unpack(dedup(raw, 2, "float16")["embedding"], 2).tolist() == [[0.5, 2.0]]


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ContractViolation, match="wrong width"):
        dedup(raw_rows(["a"], [0], [[1.0, 2.0]]), 3)
