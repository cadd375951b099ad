"""What predictions, embeddings and references are worth, against independent calculations."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from experiments.quality import Vectors, dot_auc, of_predictions, recall_at
from experiments.references import NO_MOOD, ORACLE, POPULARITY, TREE, Day, References
from experiments.truth import DayTruth, Truth, entity_numbers, expected_auc, impression_numbers
from feature_store.contracts.datasets import Feature
from simulator.behaviour import simulate_day
from simulator.config import toy
from simulator.population import Population
from simulator.tables import event_ids, identifiers


def vectors(keys: list[int], seed: int) -> Vectors:
    values = np.random.default_rng(seed).standard_normal((len(keys), 8)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Vectors(np.array(keys), values)


def test_pools_are_merged_as_the_pipeline_merges_them() -> None:
    pool = Vectors(np.array([3, 5, 7]), np.array([[1, 0], [0, 1], [2, 2]], np.float32))
    today = Vectors(np.array([4, 5]), np.array([[8, 8], [1, 0]], np.float32))
    merged = pool.merged(today, 0.8)
    assert merged.key_N.tolist() == [3, 4, 5, 7]
    expected = [[1, 0], [8, 8], [0.2, 0.8], [2, 2]]
    np.testing.assert_allclose(merged.vectors_NE, expected, atol=1e-6)
    assert merged.rows(np.array([5, 6, 99])).tolist() == [2, -1, -1]


def test_cosines_do_not_depend_on_length() -> None:
    some = vectors([1, 2, 3], 0)
    longer = Vectors(some.key_N, some.vectors_NE * np.float32(3))
    assert some.mean_cosine(longer) == pytest.approx(1)
    assert np.isnan(some.mean_cosine(vectors([9], 1)))


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


def test_the_expected_auc_is_the_mean_of_those_of_drawn_labels() -> None:
    random = np.random.default_rng(0)
    chance, score = random.uniform(0.01, 0.4, 800), random.normal(size=800).round(1)
    score += 3 * chance
    drawn = [roc_auc_score(random.random(800) < chance, score) for _ in range(400)]
    assert expected_auc(score, chance) == pytest.approx(np.mean(drawn), abs=3e-3)
    label = (random.random(800) < chance).astype(float)
    assert expected_auc(score, label) == pytest.approx(roc_auc_score(label, score))


def test_predictions_are_measured_against_what_is_known_and_against_the_truth() -> None:
    random = np.random.default_rng(2)
    chance, guess = random.uniform(0.05, 0.5, 3000), random.uniform(0.05, 0.5, 3000)
    positive = random.random(3000) < chance
    heard = np.where(positive, random.choice([4, 7], 3000), -1)
    found = of_predictions(guess, DayTruth(chance, heard, np.zeros((3000, 1))), 4)
    assert found["auc"] == pytest.approx(roc_auc_score(heard == 4, guess))
    assert found["auc_eventual"] == pytest.approx(roc_auc_score(positive, guess))
    assert found["auc_true"] == pytest.approx(expected_auc(guess, chance))
    assert found["calibration"] == pytest.approx(guess.sum() / chance.sum())
    base = log_loss(positive, np.full(3000, positive.mean()))
    assert found["ne"] == pytest.approx(log_loss(positive, guess) / base)


@pytest.fixture(scope="module")
def world() -> Population:
    return Population(toy(), 3)


@pytest.mark.parametrize("label", ["click", "conversion"])
def test_the_truth_of_a_day_is_that_of_the_simulator(world: Population, label: str) -> None:
    day = Truth(world, label).day(6)
    log = simulate_day(world, 6)
    assert np.array_equal(
        day.label_N() == 1, log.click if label == "click" else log.conversion >= 0
    )
    assert day.label_N(6).sum() <= day.label_N().sum()
    assert (day.label_N(6) == day.label_N()).all() == (label == "click")
    # How often it happens is what the chances say.
    days = [Truth(world, label).day(number) for number in range(2, 10)]
    expected = sum(x.chance_N.sum() for x in days)
    assert sum(x.label_N().sum() for x in days) == pytest.approx(expected, rel=0.15)
    assert impression_numbers(event_ids(6, np.arange(3)))[2] == 2
    assert entity_numbers(identifiers("u", np.array([42]), 7))[0] == 42


def days(world: Population, label: str, count: int) -> list[Day]:
    truth, random = Truth(world, label), np.random.default_rng(0)
    found = []
    for number in range(3, 3 + count):
        log, day = simulate_day(world, number), truth.day(number)
        noisy = day.chance_N * np.exp(random.normal(0, 0.5, len(day.chance_N)))
        rows = {
            "seen": noisy.astype(np.float32),
            "topic": (log.pin % 7).astype(np.int32),
            "rate": world.pin_popularity[log.pin],
            "surface": log.surface.astype(np.int32),
        }
        found.append(Day(number=number, rows=rows, truth=day, users=log.user, pins=log.pin))
    return found


@pytest.mark.parametrize("label", ["click", "conversion"])
def test_no_reference_surpasses_the_oracle_and_more_knowledge_is_better(
    world: Population, label: str
) -> None:
    features = (
        Feature(name="seen", scope="pin", kind="numeric", meaning=""),
        Feature(name="topic", scope="pin", kind="categorical", meaning="", cardinality=8),
        Feature(name="wide", scope="pin", kind="categorical", meaning="", cardinality=4000),
    )
    references = References(Truth(world, label), features, "rate", 10)
    *past, last = days(world, label, 4)
    for day in past:
        references.see(day)
    found = references.foretell(last)
    auc = {name: metrics["auc_true"] for name, metrics in found.items()}
    assert auc[ORACLE] == max(auc.values())
    assert auc[TREE] > 0.52
    assert auc[NO_MOOD] > auc[POPULARITY]
    assert found[ORACLE]["calibration"] == pytest.approx(1)
    assert found[NO_MOOD]["calibration"] == pytest.approx(1, abs=0.15)
    assert found[NO_MOOD]["recall_at_10"] > found[POPULARITY]["recall_at_10"]
