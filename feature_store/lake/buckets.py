"""Which bucket an id belongs to: FNV-1a of its UTF-8 bytes, then a 64-bit finaliser.

The same in raw, daily, pool and publish, and simple enough to be written again in any language.
Source: Fowler, Noll, Vo (FNV-1a, 64 bit); finaliser of MurmurHash3 (fmix64).
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.hashing import hash_texts


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
    if rows == 0:
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + rows + 1]
    return hash_texts(offsets, np.frombuffer(array.buffers()[2] or b"", np.uint8))


def bucket_of(ids: pa.Array | pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int32]:
    """The bucket [n] of each id, in 0 .. buckets - 1."""
    return (stable_hash(ids) % np.uint64(buckets)).astype(np.int32)
