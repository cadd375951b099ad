"""Pools of past vectors: known answers, placebos that say nothing, averages against noise."""

import numpy as np
import pytest

from experiments.harness.design import Cell
from experiments.ranking import drift
from experiments.ranking.aggregation import VARIANTS, Options, design
from experiments.ranking.drift import Drift
from experiments.ranking.pools import Dailies, Pools, aggregated, replaced
from feature_store.config import AggregationConfig

NOTHING = [np.nan, np.nan]
DAILIES = Dailies(np.array([5]), np.array([[[1, 0]], [[0, 1]], [NOTHING], [[-1, 0]]], np.float32))


@pytest.mark.parametrize(
    ("config", "want"),
    [
        (AggregationConfig(w=0.8), [[1, 0], [0.8, 0.2], [0.8, 0.2], [0.44, 0.16]]),
        (AggregationConfig(w=0.5), [[1, 0], [0.5, 0.5], [0.5, 0.5], [-0.25, 0.25]]),
        (AggregationConfig(heuristic="acc"), [[1, 0], [0, 1], [0, 1], [-1, 0]]),
        (AggregationConfig(heuristic="ap"), [[1, 0], [0.5, 0.5], [0.5, 0.5], [-0.5, 0.5]]),
    ],
    ids=["w .8", "w .5", "latest", "last two"],
)
def test_heuristics_give_the_answers_known_by_hand(config, want):
    """DERM (arXiv 2509.04337), appendix C, over a day on which nobody was seen."""
    found = aggregated(DAILIES, config)
    np.testing.assert_allclose(found.vectors_DNE[:, 0], want, atol=1e-6)
    taken = found.take(np.array([3, 1, 0]), np.array([5, 5, 6]))
    np.testing.assert_allclose(taken, [want[3], want[1], [0, 0]], atol=1e-6)


@pytest.mark.parametrize("placebo", ["shuffled", "random", "constant"])
def test_a_placebo_keeps_who_is_known_and_nothing_else(placebo):
    vectors = np.random.default_rng(0).standard_normal((3, 50, 8)).astype(np.float32)
    vectors[0, :10] = 0
    made = replaced(Pools(np.arange(50), vectors), placebo, seed=1).vectors_DNE
    np.testing.assert_array_equal((made != 0).any(axis=2), (vectors != 0).any(axis=2))
    if placebo == "constant":
        assert np.ptp(made[2], axis=0).max() == 0
        return
    # Anew every day: a vector that stays with somebody is an id.
    assert (made[1] != made[2]).any(axis=1).mean() > 0.9
    same = np.sum(made * vectors, axis=2) / np.maximum(np.linalg.norm(vectors, axis=2), 1e-9)
    assert abs(same.mean()) < 0.5


@pytest.fixture
def fewer(monkeypatch):
    monkeypatch.setattr(drift, "_USERS", 400)
    drift.drifting.cache_clear()
    yield
    drift.drifting.cache_clear()


def test_a_static_taste_asks_for_a_long_average_and_a_moving_one_for_the_latest(fewer):
    """The variance of an average of noise is (1 - w) / (1 + w) of it, where nothing moves."""
    found = {}
    for world in (Drift(drift=0.0, noise=1.0), Drift(drift=0.5, noise=0.1)):
        made = design(Options()).run
        for name in ("latest", "average, w 0.8", "shuffled"):
            variant = next(v for v in VARIANTS if v.name == name)
            cell = Cell(data=world.name, variant=variant, seed=0)
            found[world.name, name] = made(cell)[name].rounds[0]["lift"]
    still, moving = "drift-0-noise-1", "drift-0.5-noise-0.1"
    assert found[still, "average, w 0.8"] > found[still, "latest"] > 1
    assert found[moving, "latest"] > found[moving, "average, w 0.8"] > 1
    assert abs(found[still, "shuffled"]) < 0.5


def test_an_average_of_noise_has_the_variance_that_is_known():
    random = np.random.default_rng(0)
    noise = Dailies(np.arange(4000), random.standard_normal((60, 4000, 2)).astype(np.float32))
    for config, want in (
        (AggregationConfig(heuristic="acc"), 1.0),
        (AggregationConfig(w=0.2), 2 / 3),
        (AggregationConfig(w=0.5), 1 / 3),
        (AggregationConfig(w=0.8), 1 / 9),
        (AggregationConfig(heuristic="ap"), 1 / 2),
    ):
        assert aggregated(noise, config).vectors_DNE[-1].var() == pytest.approx(want, rel=0.05)


def test_worlds_of_equal_seeds_are_equal(fewer):
    world = Drift(drift=0.1, noise=1.0)
    first = drift.drifting(world, 3).chance_DNP
    drift.drifting.cache_clear()
    np.testing.assert_array_equal(first, drift.drifting(world, 3).chance_DNP)
