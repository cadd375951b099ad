"""The AUC guard: how well a day knows its AUC, and which day it is compared with."""

import re

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from jobs.recipes import GuardConfig
from jobs.settings import PROJECT
from jobs.steps.training_guard import auc_metrics
from models.training.auc_error import AucError

GUARDS = GuardConfig(max_auc_drop=0.05)


def day(users: int, rows: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Scores, labels and user ids of a day on which each user has tastes of its own."""
    user = generator.integers(0, users, rows)
    mood, luck = generator.normal(0, 1, (2, users))
    scores = mood[user] + generator.normal(0, 0.5, rows)
    chance = 1 / (1 + np.exp(-(0.7 * mood + luck)[user]))
    return scores, (generator.random(rows) < chance).astype(np.float32), user


def measured(scores: np.ndarray, labels: np.ndarray, user: np.ndarray) -> float | None:
    error = AucError()
    for part in np.array_split(np.arange(len(scores)), 3):
        keys = torch.from_numpy(np.random.default_rng(1).permutation(10_000)[user[part]])
        error.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]), keys)
    return error.result()


@pytest.mark.parametrize(("users", "rows"), [(40, 1000), (300, 3000)])
def test_the_error_is_what_days_of_other_users_show(users: int, rows: int) -> None:
    generator = np.random.default_rng(0)
    days = [day(users, rows, generator) for _ in range(200)]
    spread = np.std([roc_auc_score(labels, scores) for scores, labels, _ in days])
    errors = [measured(*d) for d in days[:40]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
    # Had rows been independent, the error would look a third smaller and more.
    apart = [measured(s, y, np.arange(rows)) for s, y, _ in days[:10]]
    assert np.mean(apart) < 0.67 * spread


def test_a_day_of_one_user_does_not_know_its_auc() -> None:
    scores, labels, user = day(1, 253, np.random.default_rng(0))
    assert measured(scores, labels, user) is None


def test_an_auc_that_rests_on_one_user_is_not_known() -> None:
    scores, _, user = day(20, 400, np.random.default_rng(0))
    assert measured(scores, (user == 3).astype(np.float32), user) is None
    assert measured(scores, np.zeros(400, np.float32), user) is None


def test_of_two_users_little_is_known() -> None:
    same = np.tile([1.0, 0.0], 100), np.tile([1.0, 0.0], 100).astype(np.float32)
    error = measured(*same, np.repeat([0, 1], 100))
    assert error is not None
    assert error > 0.2


def test_the_reference_is_the_newest_day_that_knows_its_auc() -> None:
    first = auc_metrics(None, {"auc": 0.7, "auc_se": 0.01}, GUARDS)
    assert first == {"auc_bound": None, "auc_reference": 0.7, "auc_reference_se": 0.01}
    small = auc_metrics(first, {"auc": 0.4, "auc_se": 0.2}, GUARDS)
    assert small["auc_bound"] == pytest.approx(0.65 - 3 * np.hypot(0.01, 0.2))
    assert small["auc_reference"] == 0.7
    alone = auc_metrics(small, {"auc": 0.4, "auc_se": None}, GUARDS)
    assert alone == {"auc_bound": None, "auc_reference": 0.7, "auc_reference_se": 0.01}
    large = auc_metrics(alone, {"auc": 0.71, "auc_se": 0.01}, GUARDS)
    assert large["auc_bound"] == pytest.approx(0.65 - 3 * np.hypot(0.01, 0.01))
    assert large["auc_reference"] == 0.71


def test_where_every_day_is_small_the_reference_moves_on() -> None:
    parent = auc_metrics(None, {"auc": 0.5, "auc_se": 0.12}, GUARDS)
    assert auc_metrics(parent, {"auc": 0.6, "auc_se": 0.11}, GUARDS)["auc_reference"] == 0.6
    assert auc_metrics(parent, {"auc": 0.6, "auc_se": 0.2}, GUARDS)["auc_reference"] == 0.5


def fires(fall: float, users: int, rows: int, days: int) -> float:
    """How often the alert speaks of a day whose AUC really fell by so much."""
    rules = yaml.safe_load((PROJECT / "infra/prometheus/alerts.yml").read_text())["groups"][0]
    (expr,) = (r["expr"] for r in rules["rules"] if r["alert"] == "DermAucDropped")
    found = re.search(r"reference offset 1d - ([\d.]+) - ([\d.]+) \* sqrt", expr)
    assert found
    margin, sigmas = map(float, found.groups())
    generator, spoken = np.random.default_rng(2), 0
    for _ in range(days):
        (before, before_se), (now, now_se) = (
            (roc_auc_score(labels, scores), measured(scores, labels, user))
            for scores, labels, user in (day(users, rows, generator), day(users, rows, generator))
        )
        assert before_se is not None
        assert now_se is not None
        spoken += now - fall < before - margin - sigmas * np.hypot(before_se, now_se)
    return spoken / days


def test_the_alert_is_silent_on_healthy_small_days_and_speaks_of_a_bad_large_one() -> None:
    assert fires(0.0, users=20, rows=250, days=60) <= 1 / 60
    assert fires(0.25, users=400, rows=3000, days=10) == 1.0
