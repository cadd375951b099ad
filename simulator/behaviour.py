"""What users do on one day: sessions, what is shown in them, and what follows.

Nothing here depends on what happened on other days, so a day can be drawn alone. Users are drawn
in blocks, each from a generator of its own. Legend: N impressions, U users, D taste dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from simulator import outcomes
from simulator.outcomes import Affinities, Codes, Flags
from simulator.population import Floats, Ints, Population
from simulator.randomness import Stream, generator
from simulator.sessions import (
    Sessions,
    Stock,
    draw_impressions,
    draw_pins,
    draw_sessions,
    stock_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLog:
    """Impressions [N] of one day, ordered by user and time, with their hidden probabilities.

    Attributes:
        user, pin, advertiser: entity numbers.
        ts: microseconds since midnight.
        surface: index into `SURFACES`; `query`: topic, -1 on the home feed.
        position: place within the session, from 0.
        action: index into `ACTIONS`.
        conversion: index into `CONVERSION_TYPES`, -1 for none; `attribution` into `ATTRIBUTIONS`.
        arrival: when the conversion arrives, microseconds since this day's midnight.
    """

    user: Ints
    pin: Ints
    advertiser: Ints
    ts: Ints
    surface: Codes
    query: Codes
    position: npt.NDArray[np.int16]
    action: Codes
    click: Flags
    good_click: Flags
    duration: Floats
    conversion: Codes
    attribution: Codes
    arrival: Ints
    p_click: Floats
    p_good_click: Floats
    p_conversion: Floats

    def take(self, rows: npt.NDArray) -> "DayLog":
        """The chosen rows."""
        return DayLog(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def simulate_day(population: Population, day: int) -> DayLog:
    """Every impression of a day, and what followed it."""
    config = population.config
    shock = generator(population.seed, Stream.DAY, day).normal(0.0, config.click.day_shock, 3)
    taste_UD = population.taste_on(day)
    stock = stock_of(population, day)
    parts = [
        _simulate_block(population, rng, day, users, taste_UD, stock, shock)
        for rng, users in _blocks(population, day)
    ]
    joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(DayLog)}
    return _reported(population, day, DayLog(**joined))


def _reported(population: Population, day: int, log: DayLog) -> DayLog:
    """The day with some of its conversions heard of at once, as many as the configuration says."""
    rng = generator(population.seed, Stream.REPORTS, day)
    at_once = rng.random(len(log.ts)) >= population.config.conversion.delayed
    told_now = at_once & (log.conversion != outcomes.NOT_CONVERTED)
    return replace(log, arrival=np.where(told_now, log.ts, log.arrival))


def _blocks(population: Population, day: int) -> Iterator[tuple[np.random.Generator, Ints]]:
    users = population.users.alive(day)
    size = population.config.block_users
    for block, first in enumerate(range(0, max(len(users), 1), size)):
        rng = generator(population.seed, Stream.EVENTS, day, block)
        yield rng, users[first : first + size]


def _simulate_block(
    population: Population,
    rng: np.random.Generator,
    day: int,
    users: Ints,
    taste_UD: Floats,
    stock: Stock,
    shock: npt.NDArray[np.float64],
) -> DayLog:
    config = population.config
    sessions = draw_sessions(population, rng, day, users, taste_UD)
    session, position, seconds = draw_impressions(config, rng, sessions)
    pin = draw_pins(config, rng, sessions, session, stock)
    user, surface = users[sessions.user[session]], sessions.surface[session]
    query = np.where(surface == 0, -1, sessions.topic[session])
    fits = _affinities(population, sessions, session, seconds, user, pin, query, taste_UD)
    popularity = population.pin_popularity[pin]
    p_click = outcomes.click_probability(config.click, shock, surface, fits, popularity, position)
    advertiser = population.pin_advertiser[pin]
    quality = population.advertiser_quality[advertiser]
    noisy = population.advertiser_noisy[advertiser]
    p_good = outcomes.good_click_probability(config.click, fits, quality)
    p_converts = outcomes.conversion_probability(config.conversion, fits, quality, noisy)
    click = rng.random(len(pin), "f4") < p_click
    good = click & (rng.random(len(pin), "f4") < p_good)
    ts = ((sessions.start[session] + seconds) * 1e6).astype(np.int64)
    conversion, attribution, arrival = outcomes.draw_conversions(
        config.conversion, rng, click, p_converts, population.advertiser_types[advertiser], ts
    )
    return DayLog(
        user=user,
        pin=pin,
        advertiser=advertiser,
        ts=ts,
        surface=surface,
        query=query.astype(np.int8),
        position=position.astype(np.int16),
        action=outcomes.draw_actions(config.click, rng, click, fits),
        click=click,
        good_click=good,
        duration=outcomes.draw_durations(rng, click, good),
        conversion=conversion,
        attribution=attribution,
        arrival=arrival,
        p_click=p_click,
        p_good_click=p_click * p_good,
        p_conversion=outcomes.attributed_probability(config.conversion, p_click, p_converts),
    )


def _affinities(
    population: Population,
    sessions: Sessions,
    session: Ints,
    seconds: npt.NDArray[np.float64],
    user: Ints,
    pin: Ints,
    query: Ints,
    taste_UD: Floats,
) -> Affinities:
    half_life_s = population.config.taste.session_half_life_h * 3600.0
    fade = np.exp2(-seconds / half_life_s).astype("f4")
    pin_ND, taste_ND = population.pin_PD[pin], taste_UD[user]
    second_ND, pull_ND = population.user_second_UD[user], sessions.pull[session]
    taste = _dot(taste_ND, pin_ND)
    # The length of taste + fade * pull, without building the sum.
    square = 1.0 + fade * (2.0 * _dot(taste_ND, pull_ND) + fade * _dot(pull_ND, pull_ND))
    present = (taste + fade * _dot(pull_ND, pin_ND)) / np.sqrt(square)
    half_square = np.maximum(1.0 + _dot(taste_ND, second_ND), 1e-6)
    buying = (taste + _dot(second_ND, pin_ND)) / np.sqrt(2.0 * half_square)
    return Affinities(
        lasting=taste,
        present=present.astype("f4"),
        buying=buying.astype("f4"),
        query=_dot(population.topics_KD[query], pin_ND),
    )


def _dot(left_ND: Floats, right_ND: Floats) -> Floats:
    product: Floats = np.einsum("nd,nd->n", left_ND, right_ND)
    return product
