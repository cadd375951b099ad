"""Columns of Arrow tables as the arrays that models read."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import Feature
from feature_store.lake.buckets import stable_hash
from feature_store.lake.schemas import unpack


def encode(feature: Feature, column: pa.Array) -> npt.NDArray:
    """A feature column as an array.

    Returns:
        categorical: int32 [n], 0 where missing; numeric: float32 [n], NaN where missing; list and
        sequence: int32 [n, max_len], padded with 0, sequences newest first; embedding: float32
        [n, dim].
    """
    if feature.kind == "numeric":
        return floats(column)
    if feature.kind == "categorical":
        return hashed_ids(column, feature.cardinality)
    if feature.kind == "embedding":
        return unpack(column, feature.dim).astype(np.float32)
    ids = hashed_ids(column.values, feature.cardinality)
    offsets = column.offsets.to_numpy().astype(np.int64)
    step = np.arange(feature.max_len)
    if feature.kind == "sequence":
        at = offsets[1:, None] - 1 - step
        inside = at >= offsets[:-1, None]
    else:
        at = offsets[:-1, None] + step
        inside = at < offsets[1:, None]
    if not len(ids):
        return np.zeros(at.shape, np.int32)
    return np.where(inside, ids[np.clip(at, 0, len(ids) - 1)], np.int32(0))


def hashed_ids(values: pa.Array, cardinality: int) -> npt.NDArray[np.int32]:
    """1 + hash mod (cardinality - 1) of each string [n]; 0 where it is null."""
    encoded = values.dictionary_encode()
    slots = 1 + stable_hash(encoded.dictionary) % np.uint64(cardinality - 1)
    slots_or_missing = np.append(slots, 0).astype(np.int32)
    indices = encoded.indices.fill_null(len(slots)).to_numpy(zero_copy_only=False)
    found: npt.NDArray[np.int32] = slots_or_missing[indices]
    return found


def codes(column: pa.Array, values: tuple[str, ...]) -> npt.NDArray[np.int32]:
    """1 + position of each string in a closed set of values; 0 for any other."""
    found = pc.index_in(column, pa.array(values, pa.string()))
    codes: npt.NDArray[np.int32] = found.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes + np.int32(1)


def floats(column: pa.Array) -> npt.NDArray[np.float32]:
    """Numbers [n], NaN where null."""
    values = column.cast(pa.float32()).fill_null(np.nan)
    found: npt.NDArray[np.float32] = values.to_numpy(zero_copy_only=False)
    return found.copy()


def missing(feature: Feature) -> pa.Array:
    """One value that says nothing, as a column."""
    if feature.kind == "embedding":
        return pa.array([bytes(4 * feature.dim)], pa.binary())
    if feature.kind in ("list", "sequence"):
        return pa.array([[]], pa.list_(pa.string()))
    return pa.array([None], pa.float32() if feature.kind == "numeric" else pa.string())
