"""The truth of a market: of anything, the same as the log's where the log has it."""

import numpy as np

from simulator.market.behaviour import simulate_market
from simulator.market.truth import Truth
from tests.market_fixtures import population


def test_what_was_shown_has_the_chances_and_the_outcomes_of_the_log() -> None:
    world = population()
    log, truth = simulate_market(world, 5).log, Truth(world)
    rows = np.random.default_rng(0).permutation(len(log.ts))[:2000]
    shown = truth.exposures(5, log.request[rows], log.slot[rows], log.pin[rows])
    chances = truth.chances(shown)
    assert np.array_equal(chances.click, log.p_click[rows])
    assert np.array_equal(truth.sales(chances), log.p_conversion[rows])
    outcomes = truth.outcomes(shown, chances)
    for name in ("click", "good_click", "action", "duration", "conversion", "attribution"):
        assert np.array_equal(getattr(outcomes, name), getattr(log, name)[rows]), name


def test_anything_may_be_asked() -> None:
    truth = Truth(population())
    requests = truth.requests(3)
    oracle = truth.oracle(3, slice(0, 50))
    there = requests.candidates_RC[:50] >= 0
    assert oracle.click.shape == there.shape
    assert ((oracle.click > 0) & (oracle.click < 1)).all()
    assert (oracle.buys[there] > 0).all()
    # The ranker of the log knows something, and not everything.
    policy = truth.policy(3).click[:50][there]
    told = np.corrcoef(np.log(policy), np.log(oracle.click[there]))[0, 1]
    assert 0.3 < told < 0.95
