"""`derm experiment ab`: rankers played against the policy that made the log, between its brackets.

What a ranker knows is graded: its log-odds are a blend of the policy's, which knows no user, and
of the true ones, with an error of its own. So the instrument can be read: how much of what the
oracle gains does a ranker gain that knows so much, and does it show offline?
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from experiments.harness.design import Cell, Design, Hypothesis, Measure, Measured, Variant
from experiments.playing.auctions import Ranker, rankers
from experiments.playing.tally import METRICS, true_lift
from experiments.playing.trial import Arm, estimated, experimented, rolled_out
from experiments.truth import expected_auc
from simulator.market.config import MARKETS, SURFACES
from simulator.market.config import toy as toy_market
from simulator.market.truth import Predictions, Truth
from simulator.population import Floats


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is played.

    Attributes:
        days: of every arm, one after another.
        first: the first of them, counted from the day the market begins.
    """

    days: int = 5
    first: int = 30

    def __post_init__(self) -> None:
        if self.days < 1 or self.first < 0:
            raise ValueError(f"expected days >= 1 and first >= 0, found {self.days}, {self.first}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded(Variant):
    """A ranker.

    Attributes:
        known: how far its log-odds are the true ones; the rest is the policy's.
        error: standard deviation of what is added to them.
        ranker: one of the brackets in its place.
    """

    known: float = 0.0
    error: float = 0.0
    ranker: str = ""


VARIANTS = (
    Graded(name="policy", ranker="policy"),
    Graded(name="random", ranker="random"),
    Graded(name="popular", ranker="popular"),
    Graded(name="policy, blurred", error=1.0),
    Graded(name="known .25", known=0.25),
    Graded(name="known .5", known=0.5),
    Graded(name="known .5, blurred", known=0.5, error=1.0),
    Graded(name="known .75", known=0.75),
    Graded(name="oracle", ranker="oracle"),
)
_MEANINGS = {
    "ctr": ("clicks per ad shown", "up"),
    "gctr": ("clicks of more than 30 s per ad shown", "up"),
    "ccvr": ("conversions after a click per click", "up"),
    "vcvr": ("conversions after a mere view per ad shown", "up"),
    "cpa": ("USD that advertisers pay per conversion", "down"),
    "revenue": ("USD per user", "up"),
}
MEASURES = (
    *(
        Measure(name=name, meaning=f"{said}, true", better=better)  # type: ignore[arg-type]
        for name, (said, better) in _MEANINGS.items()
    ),
    *(
        Measure(
            name=f"ctr_{surface}", meaning=f"clicks per ad shown on {surface}, true", better="up"
        )
        for surface in SURFACES
    ),
    Measure(name="gap", meaning="share of the oracle's gain in clicks per ad shown", better="up"),
    Measure(
        name="auc", meaning="expected AUC of the predicted clicks of all candidates", better="up"
    ),
    Measure(name="lift", meaning="lift of the click rate over the policy, true, as a logarithm"),
    Measure(
        name="estimate", meaning="the same as one experiment on half of the users estimates it"
    ),
    Measure(name="error", meaning="standard error that the experiment gives its estimate"),
    Measure(name="shared_bias", meaning="lift in revenue with common budgets less the true one"),
    Measure(name="split_bias", meaning="lift in revenue with budgets halved less the true one"),
)
HYPOTHESES = (
    Hypothesis(says="the oracle is clicked more", variant="oracle", measure="ctr", expected="up"),
    Hypothesis(says="luck is clicked less", variant="random", measure="ctr", expected="down"),
    Hypothesis(
        says="who knows half is clicked more", variant="known .5", measure="ctr", expected="up"
    ),
    Hypothesis(
        says="an error costs clicks", variant="policy, blurred", measure="ctr", expected="down"
    ),
    Hypothesis(
        says="who knows more is clicked more",
        variant="known .75",
        measure="ctr",
        expected="up",
        against="known .25",
    ),
)
_INTRODUCTION = """
Rankers are played on {seeds} markets for %d days each: every page's ads are auctioned among its 32
candidates by bid and prediction, second price, with budgets and pacing. Levels are true: each arm
has all users and all budgets, and true chances are summed. The baseline is the policy that made
the log; what the others know is said by their names, `blurred` ones err by 1 in log-odds.
"""


def design(options: Options) -> Design:
    """The experiment."""
    return Design(
        name="ab",
        title="Rankers between their brackets, played",
        introduction=_INTRODUCTION % options.days,
        run=lambda cell: {cell.variant.name: Measured.once(_measured(cell, options))},
        variants=VARIANTS,
        measures=MEASURES,
        settings=options,
        data=tuple(MARKETS),
        hypotheses=HYPOTHESES,
    )


def graded(truth: Truth, *, known: float, error: float) -> Ranker:
    """A ranker that knows so much, and errs so far."""

    def blend(policy: Floats, true: Floats, random: np.random.Generator) -> Floats:
        odds = (1 - known) * _log_odds(policy) + known * _log_odds(true)
        odds += error * random.standard_normal(odds.shape, "f4")
        return (1 / (1 + np.exp(-odds))).astype("f4")

    def predict(day: int) -> Predictions:
        random = np.random.default_rng((truth.world.seed, day))
        policy, true = truth.policy(day), truth.oracle(day)
        return Predictions(
            click=blend(policy.click, true.click, random),
            buys=blend(policy.buys, true.buys, random),
        )

    return predict


def _log_odds(chance: Floats) -> Floats:
    kept = np.clip(chance, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(kept / (1 - kept))
    return odds


def _measured(cell: Cell, options: Options) -> Mapping[str, float]:
    truth = _truth(cell.data, cell.seed)
    days = range(options.first, options.first + options.days)
    brackets = rankers(truth)
    control, oracle = (_bracket(cell.data, cell.seed, name, days) for name in ("policy", "oracle"))
    made = next(v for v in VARIANTS if v.name == cell.variant.name)
    ranker = brackets.get(made.ranker) or graded(truth, known=made.known, error=made.error)
    arm = rolled_out(truth, ranker, days)
    guess = estimated(control, arm, seed=cell.seed)["ctr"]
    gained = true_lift(control.sums_UQ, oracle.sums_UQ, "ctr").log
    lifts = {name: true_lift(control.sums_UQ, arm.sums_UQ, name).log for name in METRICS}
    biases = {
        shared: experimented(truth, brackets["policy"], ranker, days, shared=shared)["revenue"].log
        - lifts["revenue"]
        for shared in (True, False)
    }
    return {
        **{name: arm.level(name) for name in METRICS},
        **{f"ctr_{surface}": arm.level("ctr", surface) for surface in SURFACES},
        "gap": lifts["ctr"] / gained,
        "auc": _offline(truth, ranker, options.first),
        "lift": lifts["ctr"],
        "estimate": guess.log,
        "error": guess.error,
        "shared_bias": biases[True],
        "split_bias": biases[False],
    }


def _offline(truth: Truth, ranker: Ranker, day: int) -> float:
    there = truth.requests(day).candidates_RC >= 0
    return expected_auc(
        ranker(day).click[there].astype(np.float64),
        truth.oracle(day).click[there].astype(np.float64),
    )


@lru_cache(maxsize=1)
def _truth(data: str, seed: int) -> Truth:
    return Truth.of(MARKETS[data](toy_market()), seed)


@lru_cache(maxsize=2)
def _bracket(data: str, seed: int, name: str, days: range) -> Arm:
    truth = _truth(data, seed)
    return rolled_out(truth, rankers(truth)[name], days)
