"""Which ads win the slots of a day's requests, and what they pay.

An ad's score is its bid times the predicted chance of what it bids for: a click, or a click that
converts. The highest scores win, best slot first, if they reach the reserve; the winner of a slot
pays, for each click, what it needs to keep its place: the next score, or the reserve, divided by
its own predicted chance of a click (a generalised second price auction; Edelman, Ostrovsky and
Schwarz, 2007). An advertiser spends at most its budget of the day, give or take one period, and
paces itself: after each period it takes part in more or fewer auctions, as its spending lags behind
the traffic or leads (probabilistic throttling; Agarwal et al., 2014, "Budget pacing for targeted
online advertisements at LinkedIn").

A pure function of requests, predictions and luck. Legend: R requests, C candidates of a request,
S ad slots, P Pins, A advertisers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.market.config import AuctionConfig
from simulator.market.exposures import NO_PIN, Requests
from simulator.market.luck import Draw, uniform
from simulator.outcomes import DAY_US
from simulator.population import Floats, Ints

_SLOWER, _FASTER, _SLOWEST = 0.8, 1.1, 0.02

# Clicks, expected or drawn, of ads shown: (number of the request, index of the slot, Pin) -> [n].
Clicks = Callable[[Ints, Ints, Ints], npt.NDArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaigns:
    """What is bid for each Pin [P]; nothing for organic ones.

    Attributes:
        bid: USD, for a click, or for a conversion where `for_sales`.
        advertiser: who pays; -1 for organic Pins.
        budget: USD of a day of each advertiser [A].
    """

    bid: Floats
    for_sales: npt.NDArray[np.bool_]
    advertiser: Ints
    budget: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Who won.

    Attributes:
        pin_RS: -1 where no ad did.
        price_RS: USD that a click costs.
        spent_A: USD of each advertiser, of the clicks that were counted.
    """

    pin_RS: npt.NDArray[np.int32]
    price_RS: Floats
    spent_A: npt.NDArray[np.float64]


def hold(
    requests: Requests,
    p_click_RC: Floats,
    p_buys_RC: Floats,
    *,
    campaigns: Campaigns,
    rules: AuctionConfig,
    clicks: Clicks,
    luck: tuple[int, int],
    budget_share: float = 1.0,
    numbers: Ints | None = None,
) -> Slots:
    """Hold the auctions of a day, period by period.

    Args:
        p_click_RC: predicted chance that a candidate is clicked.
        p_buys_RC: predicted chance that its click converts.
        clicks: what tells the platform whether it is paid.
        luck: seed and day of the pacing's luck.
        budget_share: of each budget that these requests may spend.
        numbers: of the requests within their day; by default all of them, in order.
    """
    number = np.arange(len(requests)) if numbers is None else numbers
    score_RC = scores(requests.candidates_RC, p_click_RC, p_buys_RC, campaigns)
    budget = campaigns.budget.astype(np.float64) * budget_share
    spent, pace = np.zeros(len(budget)), np.ones(len(budget))
    places = len(rules.slots)
    pin_RS = np.full((len(requests), places), NO_PIN, np.int32)
    price_RS = np.zeros((len(requests), places), "f4")
    period = requests.ts * rules.periods // DAY_US
    order = np.argsort(period, kind="stable")
    ends = np.searchsorted(period[order], np.arange(1, rules.periods + 1))
    start = 0
    for end in ends:
        rows = order[start:end]
        start = end
        if not len(rows):
            continue
        pins = requests.candidates_RC[rows]
        active_A = np.where(spent < budget, pace, 0.0)
        draw = uniform(luck[0], Draw.PACE, luck[1], number[rows, None], pins)
        score = np.where(draw < active_A[campaigns.advertiser[pins]], score_RC[rows], -np.inf)
        at, price = _winners(score, p_click_RC[rows], places, rules.reserve / 1000.0)
        won = np.where(np.isfinite(price), np.take_along_axis(pins, at, axis=1), NO_PIN)
        pin_RS[rows], price_RS[rows] = won, np.where(won >= 0, price, 0.0)
        shown, slot = np.nonzero(won >= 0)
        ads = won[shown, slot].astype(np.int64)
        paid = clicks(rows[shown], slot, ads) * price[shown, slot]
        spent += np.bincount(campaigns.advertiser[ads], paid, len(budget))
        ahead = spent > budget * (end / len(order))
        pace = np.clip(pace * np.where(ahead, _SLOWER, _FASTER), _SLOWEST, 1.0)
    return Slots(pin_RS=pin_RS, price_RS=price_RS, spent_A=spent)


def scores(
    pins_RC: npt.NDArray[np.int32], p_click_RC: Floats, p_buys_RC: Floats, campaigns: Campaigns
) -> Floats:
    """What each candidate is worth [R, C], USD; -inf for places without a candidate."""
    worth = campaigns.bid[pins_RC] * p_click_RC
    worth *= np.where(campaigns.for_sales[pins_RC], p_buys_RC, np.float32(1))
    return np.where(pins_RC >= 0, worth, -np.inf).astype("f4")


def _winners(
    score_RC: Floats, p_click_RC: Floats, places: int, reserve: float
) -> tuple[Ints, npt.NDArray[np.float64]]:
    """The candidates [R, S] that win, best first, and their price of a click; inf for no ad."""
    best = np.argpartition(-score_RC, places, axis=1)[:, : places + 1]
    top = np.take_along_axis(score_RC, best, axis=1)
    order = np.argsort(-top, axis=1, kind="stable")
    best, top = np.take_along_axis(best, order, axis=1), np.take_along_axis(top, order, axis=1)
    after = np.maximum(top[:, 1:], reserve)
    chance = np.take_along_axis(p_click_RC, best[:, :-1], axis=1)
    price = np.where(top[:, :-1] >= reserve, after / np.maximum(chance, 1e-9), np.inf)
    return best[:, :-1], price
