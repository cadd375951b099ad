"""A public data set in a few Parquet files, of which every day is cut: what these sets share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from feature_store.contracts.base import day_number
from feature_store.contracts.datasets import DatasetSpec
from jobs.datasets.base import DayTables, read_parquet, tables_digest
from jobs.datasets.checks import Problems

Frames = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicFiles:
    """The files of a data set below `folder`.

    Attributes:
        first, last: first day worth starting from, and last day of the data.
        columns: the files by name, each with the columns and kinds it must have.
        cut: the tables of a day, from all files and the day's number.
    """

    folder: Path
    spec: DatasetSpec
    first: str
    last: str
    history_days: int
    columns: Mapping[str, Mapping[str, str]]
    cut: Callable[[Frames, int], DayTables]

    def first_day(self) -> str:
        """The first day worth starting from."""
        return self.first

    def last_day(self) -> str:
        """The last day of the data."""
        return self.last

    def read_day(self, ds: str) -> DayTables:
        """The tables of a UTC day.

        Raises:
            ContractViolation: a file is missing, damaged or of another shape.
        """
        problems = Problems(ds)
        files = zip(self.files(ds), self.columns.items(), strict=True)
        read = {name: read_parquet(path, problems, columns) for path, (name, columns) in files}
        problems.refuse("put the files of the data set, unchanged, into the source folder")
        return self.cut({n: t.to_pandas() for n, t in read.items()}, day_number(ds))

    def files(self, ds: str) -> tuple[Path, ...]:  # noqa: ARG002 - the same for every day
        """The files of the data set."""
        return tuple(self.folder / f"{name}.parquet" for name in self.columns)

    def fingerprint(self, ds: str) -> str:
        """Digest of the day's tables: other days of the log leave it alone.

        Raises:
            ContractViolation: a file is damaged or of another shape.
        """
        day = self.read_day(ds)
        return tables_digest(day.events, day.users, day.pins)
