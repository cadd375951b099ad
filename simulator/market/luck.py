"""Luck by name: a number between 0 and 1 for each tuple of keys, the same whoever asks.

Outcomes are drawn from (seed, what is drawn, day, request, slot, Pin) and not from a stream, so
that two rankers that show the same ad in the same place share its luck, and any exposure can be
asked about alone. Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Keys = npt.NDArray | int


class Draw(IntEnum):
    """What luck decides. Numbers are part of the world: never reuse or renumber them."""

    MOOD = 0
    FAD = 1
    LIKING = 2
    CLICK = 3
    GOOD = 4
    CONVERSION = 5
    DELAY = 6
    DELAY_ANGLE = 7
    TYPE = 8
    DURATION = 9
    VISIT = 10
    PACE = 11
    POLICY = 12
    OTHERS = 32  # and one more for each action of the configuration


def uniform(seed: int, draw: int, *keys: Keys) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) of keys [N]; integers among the keys stand for all N."""
    state = hashed(seed, draw, *keys)
    state >>= np.uint64(11)
    return state.astype(np.float64) * 2.0**-53


def hashed(seed: int, draw: int, *keys: Keys) -> npt.NDArray[np.uint64]:
    """64 bits of each tuple of keys [N]."""
    state = _mix(np.array([seed], np.uint64) ^ (np.array([draw], np.uint64) * _GOLDEN))
    for key in keys:
        state = _mix(state ^ (np.atleast_1d(key).astype(np.uint64) + _GOLDEN))
    return state


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = bits + _GOLDEN
    bits ^= bits >> np.uint64(30)
    bits *= _FIRST
    bits ^= bits >> np.uint64(27)
    bits *= _SECOND
    bits ^= bits >> np.uint64(31)
    return bits
