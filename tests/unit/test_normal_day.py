"""What a normal day looks like: bounds that chance alone does not break, and faults do."""

import numpy as np
import pyarrow as pa
import pytest

from jobs.datasets.normal import normal_day
from tests.aggregation_fixtures import FIRST, SPEC, event_rows, raw_rows

RATED = SPEC.model_copy(update={"label_rates": {"click": (0.1, 0.3)}, "daily_rows": (1, 20_000)})


def broken(rows: int, users: int, rate: float | None, seed: int = 0) -> set[str]:
    """Numbers outside their bounds on a day on which every user clicks at a rate of their own."""
    random = np.random.default_rng(seed)
    who = random.integers(0, users, rows)
    table = raw_rows([f"u{i}" for i in who], np.linspace(0, 86_399, rows), np.ones((rows, 1)))
    events = event_rows(table, table)
    if rate is None:
        labels = pa.nulls(rows, pa.int8())
    else:
        chances = random.beta(4 * rate, 4 * (1 - rate), users)[who] if 0 < rate < 1 else rate
        labels = pa.array((random.random(rows) < chances).astype(np.int8))
    at = events.schema.get_field_index("click")
    events = events.set_column(at, events.schema.field("click"), labels)
    return {c.number for c in normal_day(RATED, events, FIRST) if c.breaks}


@pytest.mark.parametrize(("rows", "users"), [(1, 1), (8, 1), (20, 20), (300, 10), (5000, 500)])
def test_chance_alone_breaks_no_bound(rows: int, users: int) -> None:
    # At the lowest rate that is allowed, half of the days lie below it.
    assert sum(bool(broken(rows, users, 0.1, seed)) for seed in range(50)) <= 1


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_a_fault_breaks_a_bound_on_a_day_of_some_size(rate: float) -> None:
    assert broken(2000, 200, rate) == {"rate_click"}


def test_a_label_that_nobody_has_is_a_fault_where_many_could() -> None:
    assert broken(5, 2, None) == set()
    assert broken(500, 50, None) == {"rate_click"}


def test_volume_is_what_was_declared() -> None:
    assert broken(20_001, 100, 0.2) == {"daily_rows"}
