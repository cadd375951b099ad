"""The simulated world, read from the files that `derm simulate` wrote."""

from dataclasses import dataclass
from pathlib import Path

from feature_store.contracts.base import shift_day
from feature_store.contracts.datasets import DatasetSpec
from jobs.datasets.base import DayTables, read_parquet, tables_digest
from jobs.datasets.checks import Problems
from simulator.config import WorldConfig
from simulator.spec import world_spec

FIRST_DAY = "2025-03-01"
_TABLES = ("events", "users", "pins")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAdapter:
    """The days below `folder`: ds=DAY/{events,users,pins,truth}.parquet."""

    folder: Path
    simulation: WorldConfig
    history_days: int = 7

    @property
    def spec(self) -> DatasetSpec:
        """The declaration of the world's tables."""
        return world_spec(self.simulation)

    def first_day(self) -> str:
        """The day the world begins, unless the user says otherwise."""
        return FIRST_DAY

    def last_day(self) -> str:
        """The world lasts as many days as its configuration says."""
        return shift_day(FIRST_DAY, self.simulation.days - 1)

    def read_day(self, ds: str) -> DayTables:
        """The files of a day.

        Raises:
            ContractViolation: a file is missing or damaged.
        """
        problems = Problems(ds)
        read = {
            name: read_parquet(self.folder / f"ds={ds}" / f"{name}.parquet", problems)
            for name in _TABLES
        }
        problems.refuse(f"derm simulate --ds {ds} --force")
        return DayTables(**read)

    def files(self, ds: str) -> tuple[Path, ...]:
        """The files that `derm simulate` wrote."""
        return tuple(self.folder / f"ds={ds}" / f"{name}.parquet" for name in _TABLES)

    def fingerprint(self, ds: str) -> str:
        """Digest of the day's tables.

        Raises:
            ContractViolation: a file is missing or damaged.
        """
        day = self.read_day(ds)
        return tables_digest(day.events, day.users, day.pins)


def open_folder(folder: Path, simulation: WorldConfig) -> SimulatedAdapter:
    """The adapter of a world's files."""
    return SimulatedAdapter(folder=folder, simulation=simulation)
