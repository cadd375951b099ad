import math

import numpy as np
import pytest

from jobs.steps.training_guard import auc_standard_error


def test_standard_error_of_a_worked_case() -> None:
    # 1,000 rows, 10 % positive, AUC 0.8: Q1 = 2/3, Q2 = 0.7111..., by hand.
    numerator = 0.8 * 0.2 + 99 * (2 / 3 - 0.64) + 899 * (1.28 / 1.8 - 0.64)
    metrics = {"auc": 0.8, "base_rate": 0.1, "scored_rows": 1000.0}
    assert auc_standard_error(metrics) == pytest.approx(math.sqrt(numerator / (100 * 900)))


def test_standard_error_is_what_repeated_days_show() -> None:
    generator = np.random.default_rng(0)
    positive, negative, rounds = 50, 2000, 400
    # Exponential scores are the case the formula is exact for.
    high = generator.exponential(4.0, (rounds, positive))
    low = np.sort(generator.exponential(1.0, (rounds, negative)), axis=1)
    wins = np.stack([np.searchsorted(a, b) for a, b in zip(low, high, strict=True)])
    aucs = wins.mean(axis=1) / negative
    metrics = {
        "auc": float(aucs.mean()),
        "base_rate": positive / (positive + negative),
        "scored_rows": float(positive + negative),
    }
    assert auc_standard_error(metrics) == pytest.approx(float(aucs.std()), rel=0.15)


def test_a_perfect_day_with_one_positive_has_no_error() -> None:
    assert auc_standard_error({"auc": 1.0, "base_rate": 0.1, "scored_rows": 10.0}) == 0.0
