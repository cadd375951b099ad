"""Independent random streams: each thing and each day draws from a generator of its own.

That is what lets any day be generated without the others.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What is drawn. Numbers are part of the world: never reuse or renumber them."""

    TOPICS = 0
    USERS = 1
    PINS = 2
    ADVERTISERS = 3
    CONTENT = 4
    USER_SPANS = 5
    PIN_SPANS = 6
    DRIFT = 7
    DAY = 8
    EVENTS = 9
    REPORTS = 10
    MARKET_USERS = 100
    MARKET_PINS = 101
    MARKET_ADVERTISERS = 102
    MARKET_TREES = 103
    MARKET_VISITS = 104
    MARKET_OFFSITE = 105
    MARKET_AD_SPANS = 106


def generator(seed: int, stream: Stream, *keys: int) -> np.random.Generator:
    """The generator of one stream, narrowed by keys such as the day and the block."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(stream), *keys))
    return np.random.Generator(np.random.SFC64(sequence))
