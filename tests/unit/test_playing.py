"""Playing a market: arms share their luck, sums are the truth, and tests keep their promises."""

import math

import numpy as np
import pytest

from experiments.ab import graded
from experiments.instrument import Options, design
from experiments.playing.auctions import Played, play, rankers
from experiments.playing.tally import (
    METRICS,
    Lift,
    by_user,
    drawn,
    estimated_lift,
    expected,
    level,
    power,
    sample_ratio,
    true_lift,
)
from experiments.playing.trial import estimated, experimented, present, rolled_out
from simulator.market.truth import Truth
from tests.market_fixtures import population

USERS = len(population().users.born)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(population())


@pytest.fixture(scope="module")
def arms(truth: Truth) -> dict[str, Played]:
    return {name: play(truth, 2, ranker(2)) for name, ranker in rankers(truth).items()}


def _sums(played: Played) -> np.ndarray:
    return by_user(played.shown.user, expected(played), USERS)


def test_who_knows_more_earns_more(arms: dict[str, Played]) -> None:
    revenue = {name: level(_sums(played), "ctr") for name, played in arms.items()}
    assert revenue["random"] < revenue["policy"] < revenue["oracle"]


def test_equal_arms_are_equal(truth: Truth, arms: dict[str, Played]) -> None:
    again = play(truth, 2, truth.policy(2))
    for metric in METRICS:
        assert true_lift(_sums(arms["policy"]), _sums(again), metric).log == 0


def test_arms_share_their_luck(truth: Truth, arms: dict[str, Played]) -> None:
    ends = {}
    for name in ("policy", "oracle"):
        shown = arms[name].shown
        clicked = truth.clicks(shown, arms[name].chances)
        keys = zip(shown.request, shown.slot, shown.pin, strict=True)
        ends[name] = dict(zip(keys, clicked, strict=True))
    both = ends["policy"].keys() & ends["oracle"].keys()
    assert 100 < len(both) < len(ends["policy"])
    assert all(ends["policy"][key] == ends["oracle"][key] for key in both)


def test_some_users_alone_see_what_they_would_have_seen(truth: Truth) -> None:
    some = np.arange(USERS) % 2 == 0
    half = play(truth, 2, truth.policy(2), users=some)
    assert some[half.shown.user].all()
    assert set(np.unique(half.shown.request)) <= set(
        np.flatnonzero(some[truth.requests(2).user]).tolist()
    )


def test_draws_have_the_expected_means(arms: dict[str, Played]) -> None:
    played, rng = arms["policy"], np.random.default_rng(0)
    mean, spread = expected(played).sum(axis=0), np.zeros(8)
    draws = np.stack([drawn(played, rng).sum(axis=0) for _ in range(60)])
    spread = draws.std(axis=0) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - mean) <= 4 * spread + 1e-9).all()
    more = np.stack([drawn(played, rng, planted=0.5).sum(axis=0) for _ in range(60)])
    assert more[:, 2].mean() / draws[:, 2].mean() == pytest.approx(1.5, abs=0.1)


def test_a_ratio_has_the_error_of_its_users() -> None:
    rng = np.random.default_rng(1)
    errors, found = [], []
    for _ in range(300):
        shown = rng.poisson(20, (2, 400))
        clicks = rng.binomial(shown, rng.beta(2, 30, (2, 400)))
        sums = np.zeros((2, 400, 8))
        sums[:, :, 0], sums[:, :, 1], sums[:, :, 2] = 1, shown, clicks
        lift = estimated_lift(sums[0], sums[1], "ctr")
        errors.append(lift.error)
        found.append(lift.log)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    share = np.mean([abs(x) > 1.96 * e for x, e in zip(found, errors, strict=True)])
    assert share < 0.1


def test_known_answers() -> None:
    assert power(0.0, 1.0) == pytest.approx(0.05, abs=1e-6)
    assert power(2.801585, 1.0) == pytest.approx(0.8, abs=1e-3)
    assert Lift(log=1.959964, error=1.0).p == pytest.approx(0.05, abs=1e-6)
    assert Lift(log=math.log(1.1)).relative == pytest.approx(0.1)
    assert Lift(log=0.1, error=0.05).covers(0.0) is False
    assert sample_ratio(50, 50) == 1
    assert sample_ratio(4900, 5100) == pytest.approx(0.0455, abs=1e-3)
    assert math.isnan(level(np.zeros((3, 8)), "cpa"))


def test_the_instrument_finds_what_was_planted_and_nothing_else() -> None:
    plan = design(Options(users=200, days=2, trials=60))
    cells = {c.variant.name: c for c in plan.cells(1)}
    nothing, much = (plan.run(cells[n])[n].rounds[0] for n in ("a/a", "+10 %"))
    assert nothing["found"] <= 0.17
    assert nothing["covered"] >= 0.85
    assert abs(nothing["bias"]) < 0.1
    assert much["predicted"] > nothing["predicted"]
    assert abs(much["missed"]) < 0.2
    with pytest.raises(ValueError, match="trials: expected >= 2"):
        Options(trials=1)


def test_a_ranker_that_knows_more_is_clicked_more(truth: Truth) -> None:
    arms = [
        rolled_out(truth, graded(truth, known=known, error=0.0), (2, 3))
        for known in (0.0, 0.5, 1.0)
    ]
    rates = [arm.level("ctr") for arm in arms]
    assert rates[0] < rates[1] < rates[2]
    policy = rolled_out(truth, truth.policy, (2, 3))
    assert rates[0] == pytest.approx(policy.level("ctr"), rel=0.02)
    oracle = rolled_out(truth, truth.oracle, (2, 3))
    assert rates[2] == pytest.approx(oracle.level("ctr"), rel=0.02)
    for surface in ("HF", "RP", "SR"):
        assert arms[0].level("ctr", surface) < arms[2].level("ctr", surface)


@pytest.mark.parametrize("shared", [True, False])
def test_equal_rankers_lift_nothing_however_budgets_are_shared(
    truth: Truth, *, shared: bool
) -> None:
    lifts = experimented(truth, truth.policy, truth.policy, (2,), shared=shared)
    assert all(abs(lift.log) < 0.02 for lift in lifts.values())


def test_common_budgets_flatter_the_one_that_spends_faster(truth: Truth) -> None:
    days = (2, 3)
    true = true_lift(
        rolled_out(truth, truth.policy, days).sums_UQ,
        rolled_out(truth, truth.oracle, days).sums_UQ,
        "revenue",
    )
    shared, split = (
        experimented(truth, truth.policy, truth.oracle, days, shared=shared)["revenue"]
        for shared in (True, False)
    )
    assert shared.log > true.log
    assert abs(split.log - true.log) < abs(shared.log - true.log)


def test_an_estimate_is_of_users_who_came(truth: Truth) -> None:
    arm = rolled_out(truth, truth.policy, (2,))
    assert len(arm.sums_UQ) == len(arm.drawn_UQ) == present(truth, (2,)).sum()
    guess = estimated(arm, rolled_out(truth, truth.oracle, (2,)))["ctr"]
    assert guess.error > 0
