"""Visits to the pages of advertisers that no ad had caused.

A user visits items of the topics that it buys, and some visits convert; nothing of it is attributed
to an ad. What ads caused is in the log of impressions. Legend: N visits, A actions on pages.
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from simulator.market.config import OFFSITE_TYPES
from simulator.market.population import MarketPopulation
from simulator.outcomes import DAY_US, Codes
from simulator.population import Ints
from simulator.randomness import Stream, generator
from simulator.sessions import draw_from, stocked

VISIT = OFFSITE_TYPES.index("page_visit")
_SHARPNESS = 6.0  # of the choice of a topic: how much nearer ones are preferred
_MINUTES = 10  # from a visit to its conversion, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsite:
    """Actions on pages [A], by user and time.

    Attributes:
        ts: microseconds since the day's midnight.
        kind: index into `OFFSITE_TYPES`.
    """

    user: npt.NDArray[np.int32]
    item: npt.NDArray[np.int32]
    ts: Ints
    kind: Codes

    def take(self, rows: npt.NDArray) -> Self:
        """The chosen rows."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def offsite_of(world: MarketPopulation, day: int) -> Offsite:
    """What users did on pages on a day, of themselves."""
    config, rules = world.config, world.config.conversion
    rng = generator(world.seed, Stream.MARKET_OFFSITE, day)
    users = world.users.alive(day)
    activity = world.user_visits[users] / config.visits
    user = np.repeat(users, rng.poisson(rules.visits * activity))
    topic = _topics(world, rng, user)
    items = np.arange(len(world.item_topic))
    stock = stocked(items, world.item_topic, world.item_weight, config.taste.topics)
    item = draw_from(stock, rng, topic, rng.random(len(user)) < 0.1)
    ts = (rng.random(len(user)) * (DAY_US - _MINUTES * 60_000_000)).astype(np.int64)
    buys = np.flatnonzero(rng.random(len(user)) < rules.visit_converts)
    until = world.advertiser_types[item[buys] // config.items, :-1]
    kind = (rng.random((len(buys), 1)) >= until).sum(axis=1)
    later = (rng.random(len(buys)) * _MINUTES * 60e6).astype(np.int64)
    everything = Offsite(
        user=np.concatenate([user, user[buys]]).astype(np.int32),
        item=np.concatenate([item, item[buys]]).astype(np.int32),
        ts=np.concatenate([ts, ts[buys] + later]),
        kind=np.concatenate([np.full(len(user), VISIT), kind]).astype(np.int8),
    )
    return everything.take(np.lexsort((everything.ts, everything.user)))


def _topics(world: MarketPopulation, rng: np.random.Generator, user: Ints) -> Ints:
    """A topic [N] for each visit, by what its user buys."""
    topics, size = np.empty(len(user), np.int64), world.config.block_users
    for first in range(0, len(user), size):
        block = slice(first, first + size)
        near = world.user_buying_UD[user[block]] @ world.topics_KD.T
        gumbel = -np.log(rng.standard_exponential(near.shape, "f4") + np.float32(1e-12))
        topics[block] = np.argmax(_SHARPNESS * near + gumbel, axis=1)
    return topics
