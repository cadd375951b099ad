"""What the simulated shards serve, and how any answer is judged: every row says its version.

The versions are real ones: written to files and mapped, once for all schedules of a process.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import DamagedFile
from feature_store.tables.fetching import Fetched
from feature_store.tables.forgetting import forget_ids
from feature_store.tables.shard import ShardVersion, open_shard
from tests.table_versions import IDS, default_of_version, rows_of_version, write_small

SHARDS = 2
TABLES = ("users", "pins")
NUMBERS = {f"v{n}": n for n in range(1, 8)}
# Forgotten in the next revision of every version.
FORGOTTEN = IDS[:1]
ASKED = IDS[:40]


class World:
    """Every version on every shard, in both revisions."""

    def __init__(self) -> None:
        self.data: dict[tuple[str, int, int], ShardVersion] = {}
        with tempfile.TemporaryDirectory(prefix="derm-tables-") as folder:
            root = Path(folder)
            for version, number in NUMBERS.items():
                write_small(root, version, number, shards=SHARDS, tables=TABLES)
            self._map(root, 0)
            forget_ids(root, FORGOTTEN)
            self._map(root, 1)

    def _map(self, root: Path, revision: int) -> None:
        for version in NUMBERS:
            for shard in range(SHARDS):
                self.data[version, shard, revision] = open_shard(root, version, shard)

    @staticmethod
    def damaged(version: str, shard: int) -> DamagedFile:
        """What reading a damaged file ends with."""
        return DamagedFile("a file is not what was written", where=f"{version}, shard {shard}")


class Broken(AssertionError):
    """A promise was broken."""


def judge(
    dense: str,
    fetched: Fetched,
    ids: Mapping[str, npt.NDArray[np.int64]],
    *,
    forgotten: bool,
) -> None:
    """Look whether a response is of one version alone: that of the dense weights.

    Args:
        dense: the version of the weights that the rows are about to be combined with.
        forgotten: the forgotten id was gone everywhere before the request began.

    Raises:
        Broken: it is not.
    """
    number = NUMBERS[dense]
    for table, asked in ids.items():
        values, known = fetched.values[table], fetched.known[table]
        if (values[:, 0] != number % 16).any():
            raise Broken(f"rows of version {set(values[:, 0])} with dense weights of {dense}")
        right = np.where(known[:, None], rows_of_version(number, asked), default_of_version(number))
        if (values != right).any():
            raise Broken(f"a row of {dense} belongs to another id")
        gone = np.isin(asked, FORGOTTEN)
        if forgotten and known[gone].any():
            raise Broken("a forgotten id was answered")
        missing = np.unique(asked[~known & ~gone])
        if len(missing) > fetched.defaulted:
            raise Broken(f"{len(missing)} rows are default rows, {fetched.defaulted} were counted")
