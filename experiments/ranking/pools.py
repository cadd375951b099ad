"""From the vectors of days to the pools that rankers join with: any heuristic, and placebos.

Shapes: D days, N entities of a world, E width of a vector, U entities that are asked for.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_store.config import AggregationConfig
from feature_store.embeddings.aggregate import combine

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
# What vectors are replaced with, so that nothing can come of them: those of somebody else, or of
# nobody, drawn again every day, or the same one for all.
Placebo = Literal["shuffled", "random", "constant"]


@dataclass(frozen=True, slots=True)
class Dailies:
    """The vectors of one entity type, day by day.

    Attributes:
        key_N: hashed ids, ascending.
        vectors_DNE: NaN where somebody was not seen on the day.
    """

    key_N: Ints
    vectors_DNE: Floats


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools at the end of each day.

    Attributes:
        vectors_DNE: zeros where somebody is not known yet, as a pool would say it.
    """

    key_N: Ints
    vectors_DNE: Floats

    def take(self, day_U: Ints, key_U: Ints) -> Floats:
        """The vectors [U, E] of some entities at the end of some days; zeros of the unknown."""
        at_U = np.minimum(np.searchsorted(self.key_N, key_U), len(self.key_N) - 1)
        known_U = self.key_N[at_U] == key_U
        found_UE: Floats = self.vectors_DNE[day_U, at_U] * known_U[:, None].astype(np.float32)
        return found_UE


def aggregated(dailies: Dailies, config: AggregationConfig) -> Pools:
    """The pools that a heuristic makes of dailies; who was not seen is carried over.

    The arithmetic is the one of the pipeline.
    """
    days = dailies.vectors_DNE
    pool_NE, previous_NE = np.zeros_like(days[0]), np.zeros_like(days[0])
    known_N = np.zeros(len(pool_NE), np.bool_)
    pools_DNE = np.empty_like(days)
    for number, daily_NE in enumerate(days):
        seen_N = ~np.isnan(daily_NE[:, 0])
        new_N, again_N = seen_N & ~known_N, seen_N & known_N
        pool_NE[new_N] = daily_NE[new_N]
        before = previous_NE[again_N] if config.heuristic == "ap" else None
        pool_NE[again_N] = combine(pool_NE[again_N], daily_NE[again_N], before, config)
        previous_NE[seen_N] = daily_NE[seen_N]
        known_N |= seen_N
        pools_DNE[number] = pool_NE
    return Pools(dailies.key_N, pools_DNE)


def replaced(pools: Pools, placebo: Placebo, seed: int) -> Pools:
    """The same pools with vectors that say nothing of whom they stand for.

    Who is known stays so. What is drawn is drawn again for every day: a vector that stayed with its
    user would be an id, which a ranker can learn from.
    """
    random = np.random.default_rng(seed)
    made_DNE = np.zeros_like(pools.vectors_DNE)
    for number, pool_NE in enumerate(pools.vectors_DNE):
        known = np.flatnonzero((pool_NE != 0).any(axis=1))
        if placebo == "shuffled":
            made_DNE[number, known] = pool_NE[random.permutation(known)]
        elif placebo == "random":
            drawn = random.standard_normal((len(known), pool_NE.shape[1]), np.float32)
            made_DNE[number, known] = drawn / np.sqrt(np.float32(pool_NE.shape[1]))
        else:
            made_DNE[number, known] = 1 / np.sqrt(np.float32(pool_NE.shape[1]))
    return Pools(pools.key_N, made_DNE)
