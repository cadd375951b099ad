"""Any sequence of days equals the plain recursion, bit for bit."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.config import AggregationConfig
from feature_store.contracts.base import shift_day
from feature_store.contracts.tables import pool_table
from feature_store.embeddings.aggregate import dedup, merge
from feature_store.lake.schemas import arrow_schema
from tests import reference_pool
from tests.aggregation_fixtures import FIRST, raw_rows

DIM = 3
ID = st.sampled_from(["", "a", "aa", "b", "ü", "user-10", "user-9", "z" * 40])
EVENT = st.tuples(
    ID,
    st.integers(0, 3),  # few instants, so that ties of time are common
    st.lists(st.floats(-1, 1, width=32), min_size=DIM, max_size=DIM),
)
# A day is (days since the one before, its events): gaps, empty days and repetitions included.
HISTORY = st.lists(st.tuples(st.integers(1, 4), st.lists(EVENT, max_size=8)), max_size=8)
CONFIG = st.builds(
    AggregationConfig,
    heuristic=st.sampled_from(["acc", "ma", "ap"]),
    w=st.sampled_from([0.0, 0.2, 0.8, 0.95]),
    inactive_days=st.integers(1, 6),
)


def raw_of(events: list[tuple[str, int, list[float]]], ds: str) -> pa.Table:
    ids, seconds, vectors = zip(*events, strict=True) if events else ((), (), ())
    return raw_rows(ids, seconds, np.array(vectors, np.float32).reshape(-1, DIM), ds=ds)


@settings(max_examples=150, deadline=None)
@given(history=HISTORY, config=CONFIG)
def test_merge_equals_the_recursion(
    history: list[tuple[int, list[tuple[str, int, list[float]]]]], config: AggregationConfig
) -> None:
    pool = arrow_schema(pool_table("ctr", "user")).empty_table()
    expected: dict[str, reference_pool.State] = {}
    ds = FIRST
    for gap, events in history:
        ds = shift_day(ds, gap)
        raw = raw_of(events, ds)
        pool, counts = merge(pool, dedup(raw, DIM), ds, config, DIM)
        before = len(expected)
        expected = reference_pool.step(expected, reference_pool.last_of_day(raw), ds, config)
        assert reference_pool.table_rows(pool) == reference_pool.as_rows(expected, config)
        assert counts.updated + counts.new + counts.carried == len(pool)
        assert counts.updated + counts.carried + counts.pruned == before
