"""Which bucket an id belongs to: FNV-1a of its UTF-8 bytes, then a 64-bit finaliser.

The same in raw, daily, pool and publish, and simple enough to be written again in any language.
Source: Fowler, Noll, Vo (FNV-1a, 64 bit); finaliser of MurmurHash3 (fmix64).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_OFFSET_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


def stable_hash(ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Hash strings to 64 bits, the same on every machine and in every version.

    Args:
        ids: string array [n] without nulls.

    Returns:
        Hashes [n].
    """
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    array = array.cast(pa.string())
    rows = len(array)
    hashes = np.full(rows, _OFFSET_BASIS)
    if rows == 0:
        return hashes
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + rows + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    # One pass per byte position, over the ids that are at least that long.
    alive = np.arange(rows)
    for position in range(int(lengths.max())):
        alive = alive[lengths[alive] > position]
        byte = data[offsets[alive] + position].astype(np.uint64)
        hashes[alive] = (hashes[alive] ^ byte) * _PRIME
    return _mix(hashes)


def bucket_of(ids: pa.Array | pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int32]:
    """The bucket [n] of each id, in 0 .. buckets - 1."""
    return (stable_hash(ids) % np.uint64(buckets)).astype(np.int32)


def _mix(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashes = (hashes ^ (hashes >> _SHIFT)) * _MIX_1
    hashes = (hashes ^ (hashes >> _SHIFT)) * _MIX_2
    return hashes ^ (hashes >> _SHIFT)
