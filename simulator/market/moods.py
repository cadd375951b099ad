"""What a user is in the mood for at a moment: a topic, at any time, without any earlier one.

A mood lasts hours to days and follows one of the user's interests, which wax and wane over months,
or a fad, which is over after days. Legend: N moments, I interests of a user.
"""

import numpy as np
import numpy.typing as npt

from simulator.market.luck import Draw, uniform
from simulator.market.population import MarketPopulation
from simulator.population import Ints

_WANING = 1.0  # how far, in log-odds, an interest wanes


def topics_at(
    world: MarketPopulation, user: Ints, hours: npt.NDArray[np.float64]
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The topic [N] of each user's mood at a time, in hours since the world began; and fads [N]."""
    length = world.user_mood_h[user]
    number = np.floor(hours / length + world.user_offset[user, 0])
    middle = (number + 0.5 - world.user_offset[user, 0]) * length
    which = uniform(world.seed, Draw.MOOD, user, number.astype(np.int64))
    fad = which < world.user_fad_share[user]
    # What is left of the luck chooses among the interests.
    left = np.where(fad, 0.0, which - world.user_fad_share[user])
    left /= np.maximum(1.0 - world.user_fad_share[user], 1e-12)
    until_NI = np.cumsum(interest_weights(world, user, middle / 24.0), axis=1)
    chosen = (left[:, None] * until_NI[:, -1:] >= until_NI[:, :-1]).sum(axis=1)
    return np.where(fad, _fads(world, user, hours), world.user_topics[user, chosen]), fad


def interest_weights(
    world: MarketPopulation, user: Ints, days: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """How much each lasting interest [N, I] of a user matters at a time."""
    turns = days[:, None].astype("f4") / world.user_wane_days[user] + world.user_phase[user]
    swing = np.exp(np.float32(_WANING) * np.sin(np.float32(2 * np.pi) * turns))
    weights: npt.NDArray[np.float32] = world.user_weight_UN[user] * swing
    return weights


def _fads(world: MarketPopulation, user: Ints, hours: npt.NDArray[np.float64]) -> Ints:
    number = np.floor(hours / 24.0 / world.user_fad_days[user] + world.user_offset[user, 1])
    drawn = uniform(world.seed, Draw.FAD, user, number.astype(np.int64))
    return (drawn * world.config.taste.topics).astype(np.int64)
