"""Hashes that are the same on every machine and in every version, and simple to write again.

Source: Fowler, Noll, Vo (FNV-1a, 64 bit); Appleby, MurmurHash3 (its 64-bit finaliser, fmix64).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_OFFSET_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


def mix64(numbers: npt.NDArray) -> npt.NDArray[np.uint64]:
    """Spread the bits of 64-bit numbers [n]; one to one, so distinct numbers stay distinct."""
    mixed = numbers.view(np.uint64) ^ (numbers.view(np.uint64) >> _SHIFT)
    mixed *= _MIX_1
    mixed ^= mixed >> _SHIFT
    mixed *= _MIX_2
    mixed ^= mixed >> _SHIFT
    return mixed


def hash_texts(offsets: npt.NDArray, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Hash texts that lie one after the other.

    Args:
        offsets: [n + 1], where each text begins; its end is where the next begins.
        data: UTF-8 bytes.

    Returns:
        Hashes [n].
    """
    hashes, lengths = np.full(len(offsets) - 1, _OFFSET_BASIS), np.diff(offsets)
    # One pass per byte position, over the texts that are at least that long.
    alive = np.arange(len(hashes))
    for position in range(int(lengths.max(initial=0))):
        alive = alive[lengths[alive] > position]
        byte = data[offsets[alive] + position].astype(np.uint64)
        hashes[alive] = (hashes[alive] ^ byte) * _PRIME
    return mix64(hashes)


def key_of(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """The int64 [n] by which tables of vectors know entities that have strings for ids."""
    encoded = [i.encode() for i in ids]
    offsets = np.cumsum([0, *map(len, encoded)])
    return hash_texts(offsets, np.frombuffer(b"".join(encoded), np.uint8)).view(np.int64)
