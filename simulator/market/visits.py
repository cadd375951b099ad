"""Who comes on a day, which pages they ask for, and which ads each page may show.

None of it depends on what a ranker does. Users are drawn in blocks, each from a generator of its
own. Legend: V visits, R requests, C candidates of a request.
"""

import math
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from simulator.market.exposures import NO_PIN, Requests
from simulator.market.moods import topics_at
from simulator.market.population import MarketPopulation
from simulator.population import Ints
from simulator.randomness import Stream, generator
from simulator.sessions import Stock, draw_from, stocked

SECONDS_A_SLOT = 12.0
_QUERY = 2  # the surface that is searched
_RELATED = 1


def stocks(world: MarketPopulation, day: int) -> tuple[Stock, Stock]:
    """The organic Pins, and the ads, that exist on a day."""
    alive = world.pins.alive(day)
    ads = world.pin_is_ad[alive]
    organic, paid = alive[~ads], alive[ads]
    topics = world.config.taste.topics
    made = (
        stocked(pins, world.pin_topic[pins], world.pin_weight[pins], topics)
        for pins in (organic, paid)
    )
    return next(made), next(made)


def requests_of(world: MarketPopulation, day: int) -> Requests:
    """Every request of a day."""
    users, size = world.users.alive(day), world.config.block_users
    both = stocks(world, day)
    parts = [
        _of_block(world, day, number, users[first : first + size], both)
        for number, first in enumerate(range(0, max(len(users), 1), size))
    ]
    joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Requests)}
    return Requests(**joined)


def _of_block(
    world: MarketPopulation, day: int, block: int, users: Ints, both: tuple[Stock, Stock]
) -> Requests:
    config = world.config
    rng = generator(world.seed, Stream.MARKET_VISITS, day, block)
    user, start, page = _pages(world, rng, day, users)
    surface = np.searchsorted(np.cumsum(config.surfaces)[:-1], rng.random(len(user)), side="right")
    topic, _ = topics_at(world, user, day * 24.0 + start / 3600.0)
    # Some searches are for something else than what the user is in the mood for.
    others = world.user_topics[user, rng.integers(0, config.taste.interests, len(user))]
    asked = np.where(rng.random(len(user)) < 0.8, topic, others)
    organic, ads = both
    source = draw_from(organic, rng, topic, rng.random(len(user)) < config.explore)
    about = np.where(surface == _QUERY, asked, topic)
    about = np.where(surface == _RELATED, world.pin_topic[source], about)
    return Requests(
        user=user,
        ts=(start * 1e6).astype(np.int64),
        surface=surface.astype(np.int8),
        topic=topic,
        query=np.where(surface == _QUERY, asked, -1),
        source=np.where(surface == _RELATED, source, NO_PIN),
        page=page,
        candidates_RC=_candidates(world, rng, about, ads),
    )


def _pages(
    world: MarketPopulation, rng: np.random.Generator, day: int, users: Ints
) -> tuple[Ints, npt.NDArray[np.float64], Ints]:
    """User [R], seconds since midnight [R] and number within the visit [R] of each page."""
    config = world.config
    season = 1.0 + 0.15 * math.cos(2 * math.pi * (day % 7) / 7)
    visits = rng.poisson(world.user_visits[users] * season)
    user = np.repeat(users, visits)
    # Two waves a day, around noon and in the evening.
    wave = np.where(rng.random(len(user)) < 0.4, 12.0, 19.5) + rng.normal(0.0, 3.0, len(user))
    start = (wave % 24.0) * 3600.0
    order = np.lexsort((start, user))
    start = start[order]
    pages = 1 + rng.poisson(config.pages - 1, len(user))
    visit = np.repeat(np.arange(len(user)), pages)
    page = np.arange(len(visit)) - (np.cumsum(pages) - pages)[visit]
    length = config.page * SECONDS_A_SLOT
    seconds = start[visit] + page * length * 1.1
    kept = seconds + length < 86_400.0
    user, seconds, page = user[visit][kept], seconds[kept], page[kept]
    order = np.lexsort((seconds, user))  # visits of one user may overlap
    return user[order], seconds[order], page[order]


def _candidates(
    world: MarketPopulation, rng: np.random.Generator, about: Ints, ads: Stock
) -> npt.NDArray[np.int32]:
    rules = world.config.auction
    shape = (len(about), rules.candidates)
    topic = np.repeat(about, rules.candidates)
    anywhere = rng.random(len(topic)) >= rules.relevant
    drawn = np.sort(draw_from(ads, rng, topic, anywhere).astype(np.int32).reshape(shape), axis=1)
    drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = NO_PIN
    return drawn


def organic_pins(
    world: MarketPopulation, day: int, requests: Requests, stock: Stock
) -> npt.NDArray[np.int64]:
    """Organic Pins [R, slots of a page] for every slot of every request."""
    config = world.config
    rng = generator(world.seed, Stream.EVENTS, day)
    about = np.where(requests.query >= 0, requests.query, requests.topic)
    related = requests.source >= 0
    about = np.where(related, world.pin_topic[requests.source], about)
    topic = np.repeat(about, config.page)
    anywhere = rng.random(len(topic)) < config.explore
    return draw_from(stock, rng, topic, anywhere).reshape(len(requests), config.page)
