"""Tables for the benchmarks: real files, ids asked for as people ask for them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.tables.writer import VersionWriter

_BLOCK = 100_000


def write_table(root: Path, rows: int, dim: int, shards: int) -> None:
    """A version `v` with a table `t` of the ids 0 .. rows - 1, of 4 bits a value."""
    rng = np.random.default_rng(0)
    # What is in a row does not change what it costs: one block of vectors serves all.
    vectors = rng.normal(size=(_BLOCK, dim)).astype(np.float32)
    with (
        VersionWriter(root, version="v", shards=shards) as version,
        version.table("t", bits=4, dim=dim, default=np.zeros(dim)) as table,
    ):
        for first in range(0, rows, _BLOCK):
            ids = np.arange(first, min(first + _BLOCK, rows), dtype=np.int64)
            table.add(ids, vectors[: len(ids)])


def zipf_ids(rows: int, exponent: float, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of ids without end; the n-th most popular has a share of n^-exponent.

    Popular ids are scattered over the table.
    """
    rng = np.random.default_rng(1)
    shares = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -exponent)
    shares /= shares[-1]
    scattered = rng.permutation(rows)
    while True:
        yield scattered[np.searchsorted(shares, rng.random(size))]
