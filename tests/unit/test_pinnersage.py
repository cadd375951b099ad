"""PinnerSage against worked numbers and SciPy; recall, entropy and coverage against loops."""

import math

import numpy as np
import pytest
from scipy.cluster import hierarchy

from experiments.retrieval import coverage, interest_entropy, mean_over_users, recall_of_positives
from models.pinnersage.interests import interests
from models.pinnersage.ward import clusters, ward

POINTS = np.array([(0, 0), (0.1, 0), (0, 0.1), (3, 3), (3.1, 3), (6, 0)])


def test_ward_doubles_the_worked_example():
    heights = ward(POINTS)[:, 2]
    np.testing.assert_allclose(heights, [0.1, 0.1, 0.129099, 4.858326, 7.72032], atol=1e-5)
    assert clusters(ward(POINTS), 6, 1.0).tolist() == [0, 0, 0, 1, 1, 2]


def test_interests_double_the_worked_example():
    ages = np.array([0, 1, 2, 30, 40, 80])
    found = interests(POINTS, ages, height=1.0)
    np.testing.assert_allclose(found.importance_C, [2.970249, 1.411138, 0.449329], atol=1e-6)
    assert found.medoid_C.tolist() == [0, 3, 5], "of two that tie, the first"
    assert found.cluster_N.tolist() == [0, 0, 0, 1, 1, 2]
    later = interests(POINTS, ages[::-1].copy(), height=1.0)
    assert sorted(later.importance_C, reverse=True) == later.importance_C.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_ward_equals_scipy(seed):
    points = np.random.default_rng(seed).standard_normal((60, 5))
    tree = hierarchy.linkage(points, method="ward")
    merges = ward(points)
    np.testing.assert_allclose(merges[:, 2], tree[:, 2], rtol=1e-6)
    for height in np.quantile(tree[:, 2], [0.3, 0.7, 0.95]) + 1e-9:
        theirs = hierarchy.fcluster(tree, height, criterion="distance")
        ours = clusters(merges, 60, height)
        pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len(set(theirs.tolist()))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points(count):
    found = interests(np.ones((count, 3)), np.zeros(count), height=1.0)
    assert len(found.medoid_C) == min(count, 1), "the same point twice is one interest"
    assert found.importance_C.sum() == count


def test_coverage_by_hand():
    retrieved = np.repeat(np.arange(6), [50, 30, 10, 5, 3, 2]).reshape(10, 10)
    assert coverage(retrieved, 100) == pytest.approx(3 / 100)
    assert coverage(retrieved, 100, share=1.0) == pytest.approx(6 / 100)


def test_entropy_by_hand():
    shown = np.array([[0, 0, 1, 1], [5, 5, 5, 5]])
    assert interest_entropy(shown) == pytest.approx(math.log(2) / 2)


def test_recall_equals_a_loop_and_ties_count_against_us():
    random = np.random.default_rng(0)
    users, positives = (random.integers(-2, 3, (40, 3)).astype(float) for _ in range(2))
    index = random.integers(-2, 3, (25, 3)).astype(float)
    found = recall_of_positives(users, positives, index, 5)
    for user, positive, hit in zip(users, positives, found, strict=True):
        assert hit == (sum(user @ other >= user @ positive for other in index) < 5)
    nothing = recall_of_positives(0 * users, positives, index, 25)
    assert not nothing.any()
    assert mean_over_users(np.array([1, 0, 1.0]), np.array([7, 7, 9])) == pytest.approx(0.75)
