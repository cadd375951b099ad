"""A simulated world, read from the files that `derm simulate` wrote."""

from dataclasses import dataclass
from pathlib import Path

from feature_store.contracts.base import shift_day
from feature_store.contracts.datasets import DatasetSpec
from jobs.datasets.base import DayTables, read_parquet, tables_digest
from jobs.datasets.checks import Problems, day_tables
from simulator.market.config import Simulation
from simulator.market.worlds import declared

FIRST_DAY = "2025-03-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAdapter:
    """The days below `folder`: ds=DAY/{events,users,pins,...}.parquet, and truth.parquet."""

    folder: Path
    spec: DatasetSpec
    days: int
    history_days: int = 7

    def first_day(self) -> str:
        """The day the world begins, unless the user says otherwise."""
        return FIRST_DAY

    def last_day(self) -> str:
        """The world lasts as many days as its configuration says."""
        return shift_day(FIRST_DAY, self.days - 1)

    def read_day(self, ds: str) -> DayTables:
        """The files of a day.

        Raises:
            ContractViolation: a file is missing or damaged.
        """
        problems = Problems(ds)
        read = {
            table.name: read_parquet(self._file(ds, table.name), problems)
            for table in day_tables(self.spec)
        }
        problems.refuse(f"derm simulate --ds {ds} --force")
        return DayTables.of(read)

    def files(self, ds: str) -> tuple[Path, ...]:
        """The files that `derm simulate` wrote."""
        return tuple(self._file(ds, table.name) for table in day_tables(self.spec))

    def fingerprint(self, ds: str) -> str:
        """Digest of the day's tables.

        Raises:
            ContractViolation: a file is missing or damaged.
        """
        day = self.read_day(ds)
        return tables_digest(*(day.table(t.name) for t in day_tables(self.spec)))

    def _file(self, ds: str, table: str) -> Path:
        return self.folder / f"ds={ds}" / f"{table}.parquet"


def open_world(name: str, folder: Path, simulation: Simulation) -> SimulatedAdapter:
    """The adapter of a world's files."""
    spec = declared(name, simulation)
    return SimulatedAdapter(folder=folder, spec=spec, days=simulation.days)
