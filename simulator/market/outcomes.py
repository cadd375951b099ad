"""What follows exposures, drawn by their luck: the same for the same Pin in the same slot.

Legend: N exposures.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.market.chances import Chances, log_delay
from simulator.market.config import ACTIONS, ATTRIBUTIONS
from simulator.market.exposures import Codes, Exposures
from simulator.market.luck import Draw, uniform
from simulator.market.population import MarketPopulation
from simulator.outcomes import DAY_US, Flags
from simulator.population import Floats, Ints

NEVER = np.iinfo(np.int64).max
NOT_CONVERTED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What followed each exposure [N].

    Attributes:
        action: the strongest one, an index into `ACTIONS`.
        duration: seconds spent with the Pin.
        conversion: index into `CONVERSION_TYPES`, -1 for none; only those within their window.
        attribution: index into `ATTRIBUTIONS`.
        delay: microseconds from the exposure to its conversion; `NEVER` without one.
    """

    click: Flags
    good_click: Flags
    action: Codes
    duration: Floats
    conversion: Codes
    attribution: Codes
    delay: Ints


def draw_outcomes(world: MarketPopulation, shown: Exposures, chances: Chances) -> Outcomes:
    """Draw what follows exposures."""

    def luck(draw: int, rows: npt.NDArray | slice = slice(None)) -> npt.NDArray[np.float64]:
        keys = (shown.request[rows], shown.slot[rows], shown.pin[rows])
        return uniform(world.seed, draw, shown.day, *keys)

    click = draw_clicks(world, shown, chances.click)
    clicked = np.flatnonzero(click)
    good = np.zeros(len(shown), np.bool_)
    good[clicked] = luck(Draw.GOOD, clicked) < chances.good[clicked]
    action = np.zeros(len(shown), np.int8)
    for number, ((name, _), chance) in enumerate(
        zip(world.config.others, chances.others, strict=True)
    ):
        action[luck(Draw.OTHERS + number) < chance] = ACTIONS.index(name)
    action[click] = ACTIONS.index("click")
    conversion, delay = _conversions(world, shown, chances, click)
    return Outcomes(
        click=click,
        good_click=good,
        action=action,
        duration=_durations(luck(Draw.DURATION), action, good),
        conversion=conversion,
        attribution=np.where(click, ATTRIBUTIONS.index("click"), ATTRIBUTIONS.index("view")).astype(
            np.int8
        ),
        delay=delay,
    )


def draw_clicks(world: MarketPopulation, shown: Exposures, p_click: Floats) -> Flags:
    """Whether each exposure [N] is clicked."""
    keys = (shown.request, shown.slot, shown.pin)
    clicked: Flags = uniform(world.seed, Draw.CLICK, shown.day, *keys) < p_click
    return clicked


def _conversions(
    world: MarketPopulation, shown: Exposures, chances: Chances, click: Flags
) -> tuple[Codes, Ints]:
    rules = world.config.conversion
    kind, delay = np.full(len(shown), NOT_CONVERTED, np.int8), np.full(len(shown), NEVER)
    ads = np.flatnonzero(chances.converts > 0)

    def luck(draw: int, rows: Ints) -> npt.NDArray[np.float64]:
        keys = (shown.request[rows], shown.slot[rows], shown.pin[rows])
        return uniform(world.seed, draw, shown.day, *keys)

    share = np.where(click[ads], 1.0, rules.view_share)
    rows = ads[luck(Draw.CONVERSION, ads) < chances.converts[ads] * share]
    # A normal deviate of two pieces of luck (Box and Muller, 1958).
    radius = np.sqrt(-2.0 * np.log1p(-luck(Draw.DELAY, rows)))
    normal = radius * np.cos(2.0 * math.pi * luck(Draw.DELAY_ANGLE, rows))
    days = np.exp(log_delay(rules) + rules.delay_sigma * normal)
    in_time = days <= np.where(click[rows], rules.click_days, rules.view_days)
    rows, days = rows[in_time], days[in_time]
    until = world.advertiser_types[world.pin_advertiser[shown.pin[rows]], :-1]
    kind[rows] = (luck(Draw.TYPE, rows)[:, None] >= until).sum(axis=1)
    delay[rows] = (days * DAY_US).astype(np.int64)
    return kind, delay


def _durations(luck: npt.NDArray[np.float64], action: Codes, good: Flags) -> Floats:
    """Seconds: a glance, about ten with a Pin that is looked at, more than 30 on a good click."""
    draw = -np.log1p(-luck)
    looked = np.isin(action, [ACTIONS.index(x) for x in ("closeup", "reaction", "comment", "save")])
    clicked = action == ACTIONS.index("click")
    seconds = np.where(looked, 3.0 + 12.0 * draw, draw)
    seconds = np.where(clicked, 30.0 * luck, seconds)
    return np.where(good, 30.0 + 60.0 * draw, seconds).astype("f4")
