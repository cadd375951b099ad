"""Rows of a table for hashed ids: a 64-bit finaliser, and the rest of a division.

Shapes: N ids.
"""

import torch
from torch import Tensor

_SHIFT = 33
_LOW_BITS = (1 << (64 - _SHIFT)) - 1


def _signed(bits: int) -> int:
    """64 bits as the signed number that torch takes them for."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits


_MIX_1, _MIX_2 = _signed(0xFF51AFD7ED558CCD), _signed(0xC4CEB9FE1A85EC53)
# Odd, of no simple relation to the multipliers: the fraction of the golden ratio.
_SALT = _signed(0x9E3779B97F4A7C15)


def mix64(bits_N: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (fmix64) of 64-bit patterns, int64 as torch has them.

    The same as of ids in the lake (`feature_store/lake/buckets.py`).
    """
    bits_N = (bits_N ^ ((bits_N >> _SHIFT) & _LOW_BITS)) * _MIX_1
    bits_N = (bits_N ^ ((bits_N >> _SHIFT) & _LOW_BITS)) * _MIX_2
    return bits_N ^ ((bits_N >> _SHIFT) & _LOW_BITS)


def row_of(key_N: Tensor, rows: int, *, salt: int = 0) -> Tensor:
    """The row_N of hashed ids, in 1 .. rows - 1; row 0 is nobody's.

    Ids that meet in a table meet with 1 / (rows - 1), whatever their lowest bits have in common,
    and with another salt they meet others.

    Args:
        key_N: hashed ids, int64.
        rows: of the table, two or more.
    """
    # The lowest 63 bits are a number that is not negative.
    return 1 + (mix64(key_N + salt * _SALT) & torch.iinfo(torch.int64).max) % (rows - 1)
