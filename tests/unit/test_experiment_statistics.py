"""Paired comparisons, and what embeddings are worth, against independent calculations."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from experiments.quality import Vectors, dot_auc, recall_at
from experiments.statistics import Interval, holm, interval


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


def vectors(keys: list[int], seed: int) -> Vectors:
    values = np.random.default_rng(seed).standard_normal((len(keys), 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Vectors.last(np.array(keys), values)


def test_the_last_row_of_a_key_is_kept_and_newer_ones_replace_it() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = Vectors.last(np.array([7, 3, 7, 5]), rows)
    assert found.key_N.tolist() == [3, 5, 7]
    assert found.vectors_NE.tolist() == [[2, 3], [6, 7], [4, 5]]
    newer = found.updated(Vectors(np.array([4, 5]), np.zeros((2, 2), np.float32)))
    assert newer.key_N.tolist() == [3, 4, 5, 7]
    assert newer.vectors_NE[2].tolist() == [0, 0]
    assert found.rows(np.array([5, 6, 99])).tolist() == [1, -1, -1]


def test_auc_and_recall_agree_with_a_row_at_a_time() -> None:
    random = np.random.default_rng(1)
    users, pins = vectors(list(range(30)), 1), vectors(list(range(100, 150)), 2)
    user_N, pin_N = random.integers(0, 33, 400), random.integers(100, 153, 400)
    clicked_N = random.choice([0.0, 1.0, np.nan], 400, p=[0.7, 0.2, 0.1]).astype(np.float32)
    scores, labels, hits = [], [], []
    for user, pin, clicked in zip(user_N, pin_N, clicked_N, strict=True):
        if user >= 30 or pin >= 150 or np.isnan(clicked):
            continue
        every = pins.vectors_NE @ users.vectors_NE[user]
        scores.append(every[pin - 100])
        labels.append(clicked)
        if clicked:
            hits.append((every > every[pin - 100]).sum() < 5)
    arguments = (users, pins, user_N, pin_N, clicked_N)
    assert dot_auc(*arguments) == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert recall_at(5, *arguments) == pytest.approx(np.mean(hits))


def test_a_day_without_clicks_has_no_auc_and_no_recall() -> None:
    users, pins = vectors([1], 1), vectors([2], 2)
    rows = (np.array([1]), np.array([2]), np.zeros(1, np.float32))
    assert np.isnan(dot_auc(users, pins, *rows))
    assert np.isnan(recall_at(5, users, pins, *rows))
