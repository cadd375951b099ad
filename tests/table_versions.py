"""Versions of small tables for tests: each row says which id and which version it is of."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Entity
from feature_store.tables.writer import VersionWriter

DIM = 8
_ENTITIES: dict[str, Entity] = {"users": "user", "pins": "pin"}
IDS = np.random.default_rng(3).permutation(np.arange(1, 2001, dtype=np.int64) * 7919 - 4_000_000)


def rows_of_version(number: int, ids: npt.NDArray[np.int64] = IDS) -> npt.NDArray[np.float32]:
    """Rows [N, DIM]: the version's number first, then the id, in parts that 4 bits hold exactly."""
    rows = np.zeros((len(ids), DIM), np.float32)
    rows[:, 0], rows[:, 1] = number % 16, 15
    for column in range(2, DIM):
        rows[:, column] = (ids >> (4 * (column - 2))) % 16
    rows[:, 2] = np.where(rows.min(axis=1) > 0, 0, rows[:, 2])
    return rows


def default_of_version(number: int) -> npt.NDArray[np.float32]:
    """The default row [DIM]: it has the version's number too, and no id looks like it."""
    return np.array([number % 16, 0, *[15] * (DIM - 2)], np.float32)


def write_small(
    root: Path,
    version: str,
    number: int,
    *,
    shards: int = 2,
    tables: tuple[str, ...] = ("users",),
    bits: int = 4,
    dense: Path | None = None,
) -> None:
    """Write a version; its rows come in blocks, in no order. Small blocks make many checksums."""
    with VersionWriter(root, version=version, shards=shards, block_bytes=1024) as writer:
        for name in tables:
            with writer.table(
                name, bits=bits, dim=DIM, default=default_of_version(number), entity=_ENTITIES[name]
            ) as table:
                for ids in np.array_split(IDS, 7):
                    table.add(ids, rows_of_version(number, ids))
        if dense:
            writer.dense(dense)
