"""Sessions of a day, and which Pins are shown in them.

Legend: S sessions, N impressions, U users, D taste dimensions, K topics.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.config import WorldConfig
from simulator.population import Floats, Ints, Population

_SURFACE_SHARE = (0.6, 0.25, 0.15)
_SECONDS_BETWEEN_IMPRESSIONS = 20.0


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions [S]: user (index into the block), surface, start (s), pull [S, D] and topic."""

    user: Ints
    surface: npt.NDArray[np.int8]
    start: npt.NDArray[np.float64]
    pull: Floats
    topic: Ints


@dataclass(frozen=True, slots=True)
class Stock:
    """Pins on offer, sorted by main topic.

    Attributes:
        pins: entity numbers [P].
        weight_until: cumulative popularity [P + 1].
        start: first index of each topic [K + 1].
    """

    pins: Ints
    weight_until: npt.NDArray[np.float64]
    start: Ints


def stock_of(population: Population, day: int) -> Stock:
    """The Pins that exist on a day."""
    pins = population.pins.alive(day)
    topics = population.config.taste.topics
    return stocked(pins, population.pin_topics[pins, 0], population.pin_weight[pins], topics)


def stocked(pins: Ints, topic: Ints, weight: npt.NDArray, topics: int) -> Stock:
    """Pins [P] on offer, with their main topic and their popularity."""
    order = np.argsort(topic, kind="stable")
    until = np.cumsum(weight[order])
    start = np.searchsorted(topic[order], np.arange(topics + 1))
    return Stock(pins[order], np.concatenate([[0.0], until]), start)


def draw_sessions(
    population: Population,
    rng: np.random.Generator,
    day: int,
    users: Ints,
    taste_UD: Floats,
) -> Sessions:
    """Draw the visits of a block of users; each visit has a mood of its own."""
    config = population.config
    season = 1.0 + 0.15 * math.cos(2 * math.pi * (day % 7) / 7)
    visits = rng.poisson(population.user_sessions[users] * season)
    user = np.repeat(np.arange(len(users)), visits)
    num = len(user)
    surface = np.searchsorted(np.cumsum(_SURFACE_SHARE)[:-1], rng.random(num), side="right")
    # Two waves a day, around noon and in the evening.
    wave = np.where(rng.random(num) < 0.4, 12.0, 19.5) + rng.normal(0.0, 3.0, num)
    pull = rng.standard_normal((num, config.taste.dim), "f4")
    pull *= np.float32(config.taste.session_pull / math.sqrt(config.taste.dim))
    mood_SD = taste_UD[users[user]] + pull
    gumbel_SK = -np.log(rng.standard_exponential((num, config.taste.topics), "f4") + 1e-12)
    topic = np.argmax(5.0 * (mood_SD @ population.topics_KD.T) + gumbel_SK, axis=1)
    # Sessions of one user are exchangeable, so ordering their starts orders them in time.
    order = np.lexsort((wave % 24.0, user))
    return Sessions(
        user=user,
        surface=surface.astype(np.int8),
        start=((wave % 24.0) * 3600.0)[order],
        pull=pull,
        topic=topic,
    )


def draw_impressions(
    config: WorldConfig, rng: np.random.Generator, sessions: Sessions
) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Session [N], place within it [N] and seconds since its start [N]; a day ends sessions."""
    shown = 1 + rng.poisson(config.impressions_per_session - 1, len(sessions.user))
    session = np.repeat(np.arange(len(shown)), shown)
    first = np.cumsum(shown) - shown
    position = np.arange(len(session)) - first[session]
    pause = rng.exponential(_SECONDS_BETWEEN_IMPRESSIONS, len(session))
    elapsed = np.cumsum(pause)
    seconds = elapsed - (elapsed[first] - pause[first])[session]
    kept = sessions.start[session] + seconds < 86_400.0
    return session[kept], position[kept], seconds[kept]


def draw_pins(
    config: WorldConfig,
    rng: np.random.Generator,
    sessions: Sessions,
    session: Ints,
    stock: Stock,
) -> Ints:
    """Pins [N] by popularity: among all on offer, or among those of the session's topic."""
    anywhere = rng.random(len(session)) < config.explore
    return draw_from(stock, rng, sessions.topic[session], anywhere)


def draw_from(
    stock: Stock, rng: np.random.Generator, topic: Ints, anywhere: npt.NDArray[np.bool_]
) -> Ints:
    """Pins [N] by popularity: of a topic, or of all where it has none or `anywhere` says so."""
    first, last = stock.start[topic], stock.start[topic + 1]
    anywhere = anywhere | (first == last)
    first = np.where(anywhere, 0, first)
    last = np.where(anywhere, len(stock.pins), last)
    low, high = stock.weight_until[first], stock.weight_until[last]
    drawn = low + rng.random(len(topic)) * (high - low)
    index = np.searchsorted(stock.weight_until, drawn, side="right") - 1
    return stock.pins[np.clip(index, first, last - 1)]
