"""Telling two kinds of rows apart: known answers, and nothing where there is nothing."""

import math

import numpy as np
import pytest

from jobs.datasets.separation import (
    TwoKinds,
    auc,
    auc_alone,
    auc_error,
    auc_of_tree,
    auc_of_vectors,
    bins_of,
    codes_of,
)

N = 8_000


def rows(positive, weight=None):
    count = len(positive)
    ones = np.ones(count) if weight is None else np.asarray(weight, float)
    return TwoKinds(positive=np.asarray(positive, bool), weight=ones, fold=np.arange(count) % 4)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_auc_by_hand():
    assert auc(np.array([1, 2, 3, 4]), rows([0, 0, 1, 1])) == 1.0
    assert auc(np.array([4, 3, 2, 1]), rows([0, 0, 1, 1])) == 0.0
    assert auc(np.array([1, 1, 1, 1]), rows([0, 0, 1, 1])) == 0.5
    # Of the four pairs two are right, one is a tie and one is wrong.
    assert auc(np.array([1, 3, 1, 4]), rows([0, 0, 1, 1])) == pytest.approx(2.5 / 4)
    # The wrong pair counts for nothing when its negative weighs nothing.
    assert auc(np.array([1, 3, 1, 4]), rows([0, 0, 1, 1], [1, 0, 1, 1])) == pytest.approx(0.75)
    assert math.isnan(auc(np.array([1.0, 2.0]), rows([1, 1])))


def test_missing_numbers_have_a_bin_of_their_own(random):
    values = np.where(random.random(N) < 0.2, np.nan, random.normal(size=N))
    bins = bins_of(values)
    assert ((bins == 0) == np.isnan(values)).all()
    counts = np.bincount(bins)[1:]
    assert counts.max() < 1.2 * counts.min()
    assert not bins_of(np.full(5, np.nan)).any()


def test_rare_categories_share_a_code(random):
    values = np.concatenate([np.repeat(np.arange(300), 5), np.full(100, 999)])
    codes = codes_of(values)
    assert codes.max() == 255
    assert (codes[-100:] == 0).all()


def test_a_column_that_says_nothing_has_half(random):
    positive = random.random(N) < 0.1
    assert auc_alone(random.integers(0, 200, N), rows(positive)) == pytest.approx(0.5, abs=0.04)
    assert auc_of_vectors(random.normal(size=(N, 8)), rows(positive)) == pytest.approx(
        0.5, abs=0.04
    )


def test_a_column_tells_what_its_codes_tell(random):
    codes = random.integers(0, 5, N)
    chance = np.array([0.1, 0.9, 0.5, 0.1, 0.9])[codes]
    positive = random.random(N) < chance
    assert auc_alone(codes, rows(positive)) == pytest.approx(auc(chance, rows(positive)), abs=0.01)
    vectors = random.normal(size=(N, 4)) + positive[:, None] * np.array([2.0, 0, 0, 0])
    assert auc_of_vectors(vectors, rows(positive)) == pytest.approx(0.92, abs=0.02)


def test_a_tree_finds_what_takes_two_columns_and_names_them(random):
    left, right = random.integers(0, 2, N), random.integers(0, 2, N)
    columns = {f"noise{i}": random.integers(0, 250, N) for i in range(10)}
    columns |= {"left": left, "right": right}
    positive = random.random(N) < np.where((left == 1) & (right == 1), 0.8, 0.2)
    told, by = auc_of_tree(columns, rows(positive))
    assert told == pytest.approx(auc(left * right, rows(positive)), abs=0.02)
    assert set(by[:2]) == {"left", "right"}


def test_a_tree_over_noise_tells_nothing(random):
    columns = {f"noise{i}": random.integers(0, 250, 600) for i in range(60)}
    positive = random.random(600) < 0.5
    told, _ = auc_of_tree(columns, rows(positive))
    assert abs(told - 0.5) < 3 * auc_error(300, 300, 0.5)


def test_too_few_rows_say_so():
    nothing = rows([True] * 8)
    assert math.isnan(auc_alone(np.zeros(8, int), nothing))
    assert math.isnan(auc_of_vectors(np.zeros((8, 2)), nothing))
    assert auc_of_tree({"x": np.zeros(8, int)}, nothing)[1] == ()


def test_the_error_of_an_auc_is_its_spread(random):
    found = []
    for _ in range(400):
        scores = np.concatenate([random.normal(1, 1, 40), random.normal(0, 1, 80)])
        found.append(auc(scores, rows([1] * 40 + [0] * 80)))
    assert np.std(found) == pytest.approx(auc_error(40, 80, float(np.mean(found))), rel=0.15)
