"""The auction: who wins, what is paid, and when a budget is spent."""

import numpy as np
import pytest

from simulator.market.auction import Campaigns, Slots, hold
from simulator.market.config import AuctionConfig
from simulator.market.exposures import Requests

RULES = AuctionConfig(candidates=4, slots=(0, 1), reserve=1.0, periods=4)
# Pins 0 to 3: bids of a click, but of a sale for 3; advertisers 0, 0, 1, 2.
CAMPAIGNS = Campaigns(
    bid=np.array([1.0, 0.5, 2.0, 10.0], "f4"),
    for_sales=np.array([False, False, False, True]),
    advertiser=np.array([0, 0, 1, 2]),
    budget=np.array([1e9, 1e9, 1e9], "f4"),
)
P_CLICK = np.array([0.02, 0.04, 0.005, 0.05], "f4")
P_BUYS = np.array([0.5, 0.5, 0.5, 0.1], "f4")
PAGES = 4_000


def _requests(candidates: list[int], pages: int = PAGES) -> Requests:
    nothing = np.full(pages, -1)
    return Requests(
        user=np.arange(pages),
        ts=np.linspace(0, 86_399_999_999, pages).astype(np.int64),
        surface=np.zeros(pages, np.int8),
        topic=nothing,
        query=nothing,
        source=nothing,
        page=np.zeros(pages, np.int64),
        candidates_RC=np.tile(np.array(candidates, np.int32), (pages, 1)),
    )


def _held(
    candidates: list[int], campaigns: Campaigns = CAMPAIGNS, *, share: float = 1.0, pays: float = 0
) -> Slots:
    requests = _requests(candidates)
    pins = np.maximum(requests.candidates_RC, 0)
    return hold(
        requests,
        P_CLICK[pins],
        P_BUYS[pins],
        campaigns=campaigns,
        rules=RULES,
        clicks=lambda rows, _slot, _pin: np.full(len(rows), pays),
        luck=(0, 0),
        budget_share=share,
    )


def test_the_best_scores_win_and_pay_what_the_next_is_worth() -> None:
    # Scores: 1 x .02 = .02; .5 x .04 = .02 less; 2 x .005 = .01; 10 x .05 x .1 = .05.
    slots = _held([0, 2, 3, -1])
    assert (slots.pin_RS == [3, 0]).all()
    # The first keeps its place by .02 / .05, the second by .01 / .02.
    assert slots.price_RS[0] == pytest.approx([0.4, 0.5])


def test_the_last_one_pays_the_reserve() -> None:
    slots = _held([2, -1, -1, -1])
    assert (slots.pin_RS == [2, -1]).all()
    assert slots.price_RS[0] == pytest.approx([0.001 / 0.005, 0])


def test_nobody_pays_more_than_the_bid_is_worth() -> None:
    slots = _held([0, 1, 2, 3])
    pins = slots.pin_RS
    worth = CAMPAIGNS.bid[pins] * np.where(CAMPAIGNS.for_sales[pins], P_BUYS[pins], 1)
    assert (slots.price_RS <= worth * (1 + 1e-6)).all()


def test_below_the_reserve_nobody_wins() -> None:
    poor = Campaigns(
        bid=np.full(4, 1e-3, "f4"),
        for_sales=np.zeros(4, np.bool_),
        advertiser=CAMPAIGNS.advertiser,
        budget=CAMPAIGNS.budget,
    )
    assert (_held([0, 1, 2, 3], poor).pin_RS == -1).all()


def test_a_budget_is_spread_over_the_day_and_kept() -> None:
    rules = AuctionConfig(candidates=4, slots=(0, 1), periods=48)
    budget = 0.4 * PAGES * 0.4  # of 40 % of the pages, at .40 a click
    tight = Campaigns(
        bid=CAMPAIGNS.bid,
        for_sales=CAMPAIGNS.for_sales,
        advertiser=CAMPAIGNS.advertiser,
        budget=np.array([1e9, 1e9, budget], "f4"),
    )
    requests = _requests([0, 2, 3, -1])
    pins = np.maximum(requests.candidates_RC, 0)
    slots = hold(
        requests,
        P_CLICK[pins],
        P_BUYS[pins],
        campaigns=tight,
        rules=rules,
        clicks=lambda rows, _slot, _pin: np.ones(len(rows)),
        luck=(0, 0),
    )
    one_period = PAGES / 48 * 0.5
    assert 0.9 * budget < slots.spent_A[2] <= budget + one_period
    won = (slots.pin_RS == 3).any(axis=1)
    halves = won[: PAGES // 2].mean(), won[PAGES // 2 :].mean()
    assert halves[1] > 0.5 * halves[0] > 0.1


def test_half_a_budget_is_half_a_budget() -> None:
    tight = Campaigns(
        bid=CAMPAIGNS.bid,
        for_sales=CAMPAIGNS.for_sales,
        advertiser=CAMPAIGNS.advertiser,
        budget=np.array([1e9, 1e9, 400.0], "f4"),
    )
    whole, half = (
        _held([0, 2, 3, -1], tight, share=share, pays=1.0).spent_A[2] for share in (1.0, 0.5)
    )
    assert half < 0.8 * whole


def test_a_part_of_the_requests_has_the_luck_of_the_whole() -> None:
    requests = _requests([0, 1, 2, 3])
    pins = requests.candidates_RC
    seen: list[np.ndarray] = []

    def clicks(rows: np.ndarray, _slot: np.ndarray, _pin: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.zeros(len(rows))

    numbers = np.arange(0, PAGES, 3)
    part = hold(
        requests.take(numbers),
        P_CLICK[pins][numbers],
        P_BUYS[pins][numbers],
        campaigns=CAMPAIGNS,
        rules=RULES,
        clicks=clicks,
        luck=(0, 0),
        numbers=numbers,
    )
    assert (part.pin_RS == _held([0, 1, 2, 3]).pin_RS[numbers]).all()
    assert max(rows.max() for rows in seen) < len(numbers)
