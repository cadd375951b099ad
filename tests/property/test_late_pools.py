"""Days with gaps, duplicates, ties of time and late rows give the pool of the plain recursion."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.config import AggregationConfig
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.tables import pool_table
from feature_store.embeddings.aggregate import dedup, merge
from feature_store.lake.lake import Lake
from feature_store.lake.late import accepted_before, put_late, split_late, with_late
from feature_store.lake.schemas import arrow_schema
from tests import reference_pool
from tests.aggregation_fixtures import FIRST, SPEC, event_rows, raw_rows

DIM, EVENTS, CONFIG = 2, SPEC.events_table(), AggregationConfig(inactive_days=2)
# What may happen on a day, and how long an event may take to arrive, and to arrive once more.
LAST, SLOWEST, REPEATED = 4, 3, 1
DAYS = days_between(FIRST, shift_day(FIRST, LAST))
Event = tuple[int, int, bool, str, int, list[float]]
HISTORY = st.lists(
    st.tuples(
        st.integers(0, LAST),
        st.integers(0, SLOWEST),
        st.booleans(),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 2),  # few instants, so that ties of time are common
        st.lists(st.floats(-1, 1, width=32), min_size=DIM, max_size=DIM),
    ),
    max_size=14,
)


def inferred(history: list[Event]) -> pa.Table:
    """What inference would say of every event; the i-th is event `e<i>`."""
    ids, seconds = [e[3] for e in history], [e[0] * 86_400 + e[4] for e in history]
    vectors = np.array([e[5] for e in history], np.float32).reshape(-1, DIM)
    return raw_rows(ids, seconds, vectors)


def delivered(history: list[Event], arrival: int) -> pa.Array:
    """Which events a day's delivery holds."""
    chosen = [
        happened + delay == arrival or (again and happened + delay + REPEATED == arrival)
        for happened, delay, again, *_ in history
    ]
    return pa.array(chosen, pa.bool_())


@settings(max_examples=30, deadline=None)
@given(history=HISTORY, patience=st.integers(0, SLOWEST - 1))
def test_the_pool_is_the_recursion_over_what_came_in_time(
    history: list[Event], patience: int
) -> None:
    """A day is validated, and with it closed, after the delivery of `patience` days later."""
    raw = inferred(history)
    rows = event_rows(raw, raw)
    with tempfile.TemporaryDirectory() as folder:
        lake, on_time = Lake(Path(folder)), {}
        for arrival in range(LAST + SLOWEST + REPEATED + 1):
            ds, oldest_open = shift_day(FIRST, arrival), shift_day(FIRST, arrival - patience)
            delivery = split_late(
                rows.filter(delivered(history, arrival)),
                ds,
                lambda day, oldest=oldest_open: day >= oldest,
                accepted_before(lake, EVENTS, ds),
            )
            put_late(lake, EVENTS, ds, delivery)
            on_time[ds] = delivery.on_time
        pool = arrow_schema(pool_table("ctr", "user")).empty_table()
        expected: dict[str, reference_pool.State] = {}
        for day, ds in enumerate(DAYS):
            seen = with_late(lake, EVENTS, ds, on_time[ds])["event_id"].combine_chunks()
            mine = raw.filter(pa.compute.is_in(raw["event_id"], value_set=seen))
            pool, _ = merge(pool, dedup(mine, DIM), ds, CONFIG, DIM)
            in_time = [happened == day and delay <= patience for happened, delay, *_ in history]
            daily = reference_pool.last_of_day(raw.filter(pa.array(in_time, pa.bool_())))
            expected = reference_pool.step(expected, daily, ds, CONFIG)
            assert reference_pool.table_rows(pool) == reference_pool.as_rows(expected, CONFIG)
