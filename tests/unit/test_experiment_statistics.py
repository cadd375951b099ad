"""Intervals and Holm's correction: they promise what they keep."""

import numpy as np
import pytest
from scipy import stats

from experiments.harness.statistics import Interval, holm, interval


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(1.0, 2.0, (5, 4))
    found, means = interval(values), values.mean(axis=1)
    expected = stats.ttest_1samp(means, 0.0)
    low, high = expected.confidence_interval(0.95)
    assert (found.mean, found.p) == pytest.approx((means.mean(), expected.pvalue))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("shape", ["normal", "uniform", "laplace"])
def test_five_worlds_cover_what_is_promised(shape: str) -> None:
    """World effects of three shapes, days that are noisy around them: 95 % hold the truth."""
    random, trials = np.random.default_rng(7), 4000
    draw = {"normal": random.normal, "laplace": random.laplace}.get(
        shape, lambda _, scale, size: random.uniform(-scale, scale, size)
    )
    worlds = draw(0.0, 0.01, (trials, 5, 1))
    values = 0.03 + worlds + random.normal(0, 0.005, (trials, 5, 9))
    found = [interval(v) for v in values]
    covered = np.mean([x.low <= 0.03 <= x.high for x in found])
    assert 0.93 <= covered <= 0.97


def test_holm_keeps_chance_findings_of_a_whole_table_rare() -> None:
    random, trials = np.random.default_rng(5), 1500
    tables = random.normal(0, 1, (trials, 7, 5, 1))
    raw = [[interval(v) for v in table] for table in tables]
    any_raw = np.mean([any(x.verdict != "open" for x in table) for table in raw])
    any_held = np.mean([any(x.verdict != "open" for x in holm(table)) for table in raw])
    assert any_raw > 0.2
    assert any_held <= 0.06


def test_holm_by_hand() -> None:
    found = holm([Interval(1.0, 0, 2, p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [x.p for x in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [x.verdict for x in found] == ["up", "open", "open", "up"]


def test_days_of_one_seed_do_not_count_as_seeds() -> None:
    effect = np.array([-1.0, 1.0, -1.0, 1.0, 0.5])
    days = effect[:, None] + np.random.default_rng(0).normal(0, 0.01, (5, 50))
    found = interval(days)
    assert found.verdict == "open"
    assert found.high - found.low > 1


def test_missing_days_are_left_out_and_verdicts_follow_the_mean() -> None:
    values = np.full((4, 3), 2.0)
    values[:, 0] = np.nan
    found = interval(values)
    assert (found.mean, found.low, found.high, found.verdict) == (2.0, 2.0, 2.0, "up")
    assert interval(-values).verdict == "down"
    assert interval(np.zeros((4, 3))).verdict == "open"


def test_one_world_shows_nothing() -> None:
    found = interval(np.full((1, 3), 2.0))
    assert (found.mean, found.verdict) == (2.0, "open")
    assert np.isnan([found.low, found.high]).all()
