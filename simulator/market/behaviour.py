"""What happens in a market on one day: pages, auctions, what is shown, and what follows.

Nothing here depends on what happened on other days, so a day can be drawn alone. Legend: N
impressions, R requests, C candidates, S ad slots.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from simulator.market.auction import Campaigns, Slots, hold
from simulator.market.chances import attributed, chances_of, day_bias
from simulator.market.exposures import Exposures, Requests
from simulator.market.luck import Draw, uniform
from simulator.market.offsite import Offsite, offsite_of
from simulator.market.outcomes import NEVER, draw_clicks, draw_outcomes
from simulator.market.population import MarketPopulation
from simulator.market.visits import SECONDS_A_SLOT, organic_pins, requests_of, stocks
from simulator.outcomes import Codes, Flags, sigmoid
from simulator.population import Floats, Ints

_ROWS = 32_768  # at a time: their vectors stay in the cache
_RELEVANT = 1.5  # log-odds that the logging policy grants an ad of the page's topic


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketLog:
    """Impressions [N] of one day, by user and time, with their hidden probabilities.

    Attributes:
        request: number of the request within the day; `slot`: place on its page.
        ts: microseconds since midnight.
        conversion: index into `CONVERSION_TYPES`, -1 for none; `attribution` into `ATTRIBUTIONS`.
        arrival: when the conversion arrives, microseconds since this day's midnight.
        cost: USD that the advertiser paid for the click; 0 without one.
    """

    request: npt.NDArray[np.int32]
    slot: npt.NDArray[np.int16]
    position: npt.NDArray[np.int16]
    user: npt.NDArray[np.int32]
    pin: npt.NDArray[np.int32]
    ts: Ints
    surface: Codes
    query: npt.NDArray[np.int16]
    source: npt.NDArray[np.int32]
    action: Codes
    click: Flags
    good_click: Flags
    duration: Floats
    conversion: Codes
    attribution: Codes
    arrival: Ints
    cost: Floats
    p_click: Floats
    p_good_click: Floats
    p_conversion: Floats

    def take(self, rows: npt.NDArray) -> Self:
        """The chosen rows."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketDay:
    """What happened: pages, what they showed, and the visits that no ad had caused."""

    requests: Requests
    log: MarketLog
    offsite: Offsite


def simulate_market(world: MarketPopulation, day: int) -> MarketDay:
    """Everything that happened on a day."""
    requests = requests_of(world, day)
    slots = _auctions(world, day, requests)
    return MarketDay(
        requests=requests,
        log=_log(world, day, requests, slots),
        offsite=offsite_of(world, day),
    )


def campaigns_of(world: MarketPopulation) -> Campaigns:
    """The campaigns of every ad that ever lives."""
    return Campaigns(
        bid=world.pin_bid,
        for_sales=world.pin_objective == 1,
        advertiser=world.pin_advertiser,
        budget=world.advertiser_budget,
    )


def logging_policy(world: MarketPopulation, day: int, requests: Requests) -> tuple[Floats, Floats]:
    """What the ranker of the log predicts of candidates [R, C]: a click, and a click's sale.

    It knows Pins, topics and surfaces, and nothing of users; its error is part of the world.
    """
    rules, pins = world.config.click, requests.candidates_RC
    number = np.arange(len(requests))[:, None]
    # Evenly spread, as wide as asked for.
    luck = uniform(world.seed, Draw.POLICY, day, number, pins).astype("f4")
    odds = np.float32(np.sqrt(12.0) * world.config.auction.noise) * (luck - np.float32(0.5))
    odds += (rules.popularity * world.pin_popularity + world.pin_bias)[pins]
    base = day_bias(world, day) + np.asarray(rules.ad, "f4")
    odds += base[requests.surface][:, None]
    about = np.where(requests.query >= 0, requests.query, requests.topic)
    same = world.pin_topic.astype(np.int16)[pins] == about.astype(np.int16)[:, None]
    odds += np.float32(_RELEVANT) * same
    sells = world.config.conversion
    quality = world.advertiser_quality[world.pin_advertiser]
    return sigmoid(odds), sigmoid(sells.bias + sells.quality * quality)[pins]


def _auctions(world: MarketPopulation, day: int, requests: Requests) -> Slots:
    rules = world.config.auction
    p_click, p_buys = logging_policy(world, day, requests)

    def clicks(request: Ints, slot: Ints, pin: Ints) -> npt.NDArray:
        place = np.asarray(rules.slots)[slot]
        shown = Exposures.of(day, requests, request, place, pin, page=world.config.page)
        return draw_clicks(world, shown, chances_of(world, shown).click)

    return hold(
        requests,
        p_click,
        p_buys,
        campaigns=campaigns_of(world),
        rules=rules,
        clicks=clicks,
        luck=(world.seed, day),
    )


def _log(world: MarketPopulation, day: int, requests: Requests, slots: Slots) -> MarketLog:
    config = world.config
    pins = organic_pins(world, day, requests, stocks(world, day)[0])
    cost = np.zeros(pins.shape, "f4")
    for index, place in enumerate(config.auction.slots):
        won = slots.pin_RS[:, index] >= 0
        pins[won, place] = slots.pin_RS[won, index]
        cost[won, place] = slots.price_RS[won, index]
    request = np.repeat(np.arange(len(requests)), config.page)
    slot = np.tile(np.arange(config.page), len(requests))
    shown = Exposures.of(day, requests, request, slot, pins.reshape(-1), page=config.page)
    price = cost.reshape(-1)
    parts = [
        _rows(world, requests, _part(shown, slice(i, i + _ROWS)), price[i : i + _ROWS])
        for i in range(0, max(len(shown), 1), _ROWS)
    ]
    return joined(parts)


def _part(shown: Exposures, rows: slice) -> Exposures:
    names = [f.name for f in fields(Exposures) if f.name != "day"]
    return Exposures(day=shown.day, **{n: getattr(shown, n)[rows] for n in names})


def _rows(
    world: MarketPopulation, requests: Requests, shown: Exposures, price: Floats
) -> MarketLog:
    chances = chances_of(world, shown)
    followed = draw_outcomes(world, shown, chances)
    ts = requests.ts[shown.request] + (shown.slot * SECONDS_A_SLOT * 1e6).astype(np.int64)
    never = followed.delay == NEVER
    return MarketLog(
        request=shown.request.astype(np.int32),
        slot=shown.slot.astype(np.int16),
        position=shown.position.astype(np.int16),
        user=shown.user.astype(np.int32),
        pin=shown.pin.astype(np.int32),
        ts=ts,
        surface=shown.surface,
        query=shown.query.astype(np.int16),
        source=shown.source.astype(np.int32),
        action=followed.action,
        click=followed.click,
        good_click=followed.good_click,
        duration=followed.duration,
        conversion=followed.conversion,
        attribution=followed.attribution,
        arrival=np.where(never, NEVER, ts + np.where(never, 0, followed.delay)),
        cost=np.where(followed.click, price, 0).astype("f4"),
        p_click=chances.click,
        p_good_click=chances.click * chances.good,
        p_conversion=attributed(world.config.conversion, chances),
    )


def joined(parts: list[MarketLog]) -> MarketLog:
    """Logs one after the other."""
    columns = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(MarketLog)
    }
    return MarketLog(**columns)
