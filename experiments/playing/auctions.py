"""A day played by a ranker: the auctions are held with its predictions, and the truth answers.

Both arms of an experiment see the same requests and candidates, and share their luck: what one
shows in the same place as the other ends the same. Legend: R requests, C candidates, N ads shown,
S ad slots.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulator.market.auction import hold
from simulator.market.chances import Chances
from simulator.market.exposures import Exposures
from simulator.market.truth import Predictions, Truth
from simulator.population import Floats, Ints

# A ranker, as an experiment sees it: predictions for the candidates of a day's requests.
Ranker = Callable[[int], Predictions]
# What a budget is charged with: what clicks cost in expectation, or those that luck drew.
Charged = Literal["expected", "drawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """Ads that were shown on a day [N].

    Attributes:
        price: USD that a click costs.
        sales_after_click, sales_after_view: chance of an attributed conversion after a click, and
            after none.
    """

    shown: Exposures
    chances: Chances
    price: Floats
    sales_after_click: Floats
    sales_after_view: Floats

    def __len__(self) -> int:
        return len(self.price)


def play(
    truth: Truth,
    day: int,
    predictions: Predictions,
    *,
    users: npt.NDArray[np.bool_] | None = None,
    budget_share: float = 1.0,
    charged: Charged = "expected",
) -> Played:
    """Hold the auctions of a day.

    Args:
        predictions: of every candidate of the day's requests.
        users: whose requests are played [all users that ever live]; None: everybody's.
        budget_share: of each budget that these requests may spend.
        charged: `drawn` is what a platform sees; `expected` is free of luck, for what is true.
    """
    requests, rules = truth.requests(day), truth.world.config.auction
    numbers = np.arange(len(requests)) if users is None else np.flatnonzero(users[requests.user])

    def paid(rows: Ints, slot: Ints, pin: Ints) -> npt.NDArray:
        shown = truth.exposures(day, numbers[rows], np.asarray(rules.slots)[slot], pin)
        chances = truth.chances(shown)
        return chances.click if charged == "expected" else truth.clicks(shown, chances)

    slots = hold(
        requests.take(numbers),
        predictions.click[numbers],
        predictions.buys[numbers],
        campaigns=truth.campaigns,
        rules=rules,
        clicks=paid,
        luck=(truth.world.seed, day),
        budget_share=budget_share,
        numbers=numbers,
    )
    row, slot = np.nonzero(slots.pin_RS >= 0)
    pin = slots.pin_RS[row, slot].astype(np.int64)
    shown = truth.exposures(day, numbers[row], np.asarray(rules.slots)[slot], pin)
    chances = truth.chances(shown)
    after_click, after_view = truth.sales_by_cause(chances)
    return Played(
        shown=shown,
        chances=chances,
        price=slots.price_RS[row, slot],
        sales_after_click=after_click,
        sales_after_view=after_view,
    )


def rankers(truth: Truth) -> dict[str, Ranker]:
    """The rankers that every experiment is read against, worst first.

    `random` knows nothing, `popular` the Pins that are shown most, `policy` made the log, and
    `oracle` knows every chance.
    """

    def random(day: int) -> Predictions:
        shape = truth.requests(day).candidates_RC.shape
        drawn = np.random.default_rng((truth.world.seed, day)).random(shape, "f4")
        return Predictions(click=0.01 + 0.05 * drawn, buys=np.full(shape, 0.05, "f4"))

    def popular(day: int) -> Predictions:
        pins = truth.requests(day).candidates_RC
        click = 0.03 * np.exp(0.3 * truth.world.pin_popularity)
        return Predictions(click=click.astype("f4")[pins], buys=np.full(pins.shape, 0.05, "f4"))

    return {"random": random, "popular": popular, "policy": truth.policy, "oracle": truth.oracle}
