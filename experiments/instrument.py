"""`derm experiment instrument`: whether the simulated A/B test itself can be believed.

A market's log is played by the ranker that made it, users are split at random again and again, and
outcomes are drawn anew each time. Between two equal halves nothing may be found more often than
chance allows; a planted effect must be found as often as the power curve says; and intervals must
hold the truth as often as they promise.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from experiments.harness.design import Cell, Design, Hypothesis, Measure, Measured, Variant
from experiments.playing.auctions import Played, play
from experiments.playing.tally import (
    METRICS,
    QUANTITIES,
    Lift,
    by_user,
    drawn,
    estimated_lift,
    power,
    sample_ratio,
)
from simulator.market.config import MARKETS, MarketConfig
from simulator.market.config import toy as toy_market
from simulator.market.truth import Truth

_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Options:
    """How large the experiments are that are played.

    Attributes:
        users, days: of one experiment.
        trials: experiments per variant and world.
    """

    users: int = 4_000
    days: int = 10
    trials: int = 1_000

    def __post_init__(self) -> None:
        for name in ("users", "days", "trials"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected >= 2, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted(Variant):
    """An effect on the chance of a click, of every ad that the treatment shows."""

    effect: float = 0.0


VARIANTS = (
    Planted(name="a/a"),
    Planted(name="+1 %", effect=0.01),
    Planted(name="-1 %", effect=-0.01),
    Planted(name="+3 %", effect=0.03),
    Planted(name="+10 %", effect=0.1),
)
MEASURES = (
    Measure(name="found", meaning="share of trials whose click rates differ at the level of 5 %"),
    Measure(name="predicted", meaning="the same share as the power curve predicts it"),
    Measure(name="missed", meaning="found less predicted"),
    Measure(name="covered", meaning="share of the 95 % intervals that hold the true effect"),
    Measure(name="bias", meaning="mean estimated lift of the click rate less the true one"),
    *(
        Measure(name=f"found_{name}", meaning=f"share of trials whose {name} differ at 5 %")
        for name in METRICS
        if name != "ctr"
    ),
    Measure(name="uneven", meaning="share of the splits that the sample-ratio check accuses"),
    Measure(name="skew", meaning="largest distance of the p-values' distribution from an even one"),
)
HYPOTHESES = (
    *(
        Hypothesis(
            says=f"an effect of {v.name} is found more often than none",
            variant=v.name,
            measure="found",
            expected="up",
        )
        for v in VARIANTS[3:]
    ),
    *(
        Hypothesis(
            says=f"intervals hold {v.name} as often as nothing",
            variant=v.name,
            measure="covered",
            expected="open",
        )
        for v in VARIANTS[1:]
    ),
)

_INTRODUCTION = """
Each of {seeds} markets is played for %(days)d days by the ranker that made its log (auctions,
budgets, second prices), with %(users)d users. Then come %(trials)d experiments per row: users are
split evenly at random, outcomes are drawn from the true chances, those of the treatment with the
planted effect on the chance of every click, and the lift is estimated with the error of a ratio of
means by user. Chance alone lets `found` of the row a/a be between %(low).3f and %(high).3f in 95 of
100 markets.
"""


def design(options: Options) -> Design:
    """The experiment."""
    error = 1.96 * math.sqrt(_LEVEL * (1 - _LEVEL) / options.trials)
    said = dataclasses.asdict(options) | {"low": _LEVEL - error, "high": _LEVEL + error}
    return Design(
        name="instrument",
        title="The instrument: can the simulated A/B test be believed?",
        introduction=_INTRODUCTION % said,
        run=lambda cell: {cell.variant.name: Measured.once(_measured(cell, options))},
        variants=VARIANTS,
        measures=MEASURES,
        settings=options,
        data=("market",),
        hypotheses=HYPOTHESES,
    )


def _measured(cell: Cell, options: Options) -> Mapping[str, float]:
    config, effect = _sized(cell.data, options), getattr(cell.variant, "effect", 0.0)
    world = _world(config, cell.seed, options.days)
    random = np.random.default_rng(
        (cell.seed, options.trials, round(1e6 * abs(effect)), effect > 0)
    )
    trials = [_trial(world, random, effect) for _ in range(options.trials)]
    lifts = [trial.lifts["ctr"] for trial in trials]
    true = math.log1p(effect)
    found = {name: np.mean([t.lifts[name].p < _LEVEL for t in trials]) for name in METRICS}
    predicted = np.mean([power(true, x.error) for x in lifts])
    p = np.sort([x.p for x in lifts])
    even = np.arange(1, len(p) + 1) / len(p)
    return {
        "found": float(found.pop("ctr")),
        "predicted": float(predicted),
        "missed": float(np.mean([x.p < _LEVEL for x in lifts]) - predicted),
        "covered": float(np.mean([x.covers(true) for x in lifts])),
        "bias": float(np.mean([x.log for x in lifts]) - true),
        **{f"found_{name}": float(share) for name, share in found.items()},
        "uneven": float(np.mean([t.uneven < _LEVEL for t in trials])),
        "skew": float(max(np.abs(p - even).max(), np.abs(p - even + 1 / len(p)).max())),
    }


@dataclass(frozen=True, slots=True)
class _World:
    """Ads that were shown, the user of each by number among those that saw any."""

    played: tuple[Played, ...]
    user: tuple[np.ndarray, ...]
    users: int


@dataclass(frozen=True, slots=True)
class _Trial:
    lifts: Mapping[str, Lift]
    uneven: float


def _sized(data: str, options: Options) -> MarketConfig:
    """The toy market with other numbers of users; as many ads and advertisers for each."""
    small = MARKETS[data](toy_market())
    return dataclasses.replace(
        small, users=options.users, ads=small.ads * 2, days=options.days, churn=0.0
    )


@lru_cache(maxsize=1)
def _world(config: MarketConfig, seed: int, days: int) -> _World:
    truth = Truth.of(config, seed)
    played = tuple(play(truth, day, truth.policy(day)) for day in range(days))
    everybody = np.concatenate([x.shown.user for x in played])
    seen, number = np.unique(everybody, return_inverse=True)
    parts = np.split(number, np.cumsum([len(x) for x in played])[:-1])
    return _World(played, tuple(parts), len(seen))


def _trial(world: _World, random: np.random.Generator, effect: float) -> _Trial:
    treated = random.random(world.users) < 0.5
    sums = np.zeros((world.users, len(QUANTITIES)))
    for played, user in zip(world.played, world.user, strict=True):
        values = drawn(played, random, planted=effect * treated[user])
        sums += by_user(user, values, world.users)
    sums[:, 0] = 1.0
    arms = sums[~treated], sums[treated]
    return _Trial(
        {name: estimated_lift(*arms, name) for name in METRICS},
        sample_ratio(len(arms[0]), len(arms[1])),
    )
