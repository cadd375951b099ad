"""Where the embedding spaces of a home begin, in `spaces.json`; written by `derm bootstrap`.

The first space begins with the home. A later one begins twice: with the day that is trained from
scratch, and with the earlier day from which on its pools are filled by back inference.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract, Day, shift_day
from feature_store.contracts.errors import ManifestCorrupt
from jobs.paths import HomePaths
from jobs.settings import Home


class Spaces(Contract):
    """The days on which something has no yesterday, beside the first day of the home.

    Attributes:
        trained: days whose snapshot was trained from scratch, oldest first.
        pooled: days whose pool started empty, oldest first.
    """

    trained: tuple[Day, ...] = ()
    pooled: tuple[Day, ...] = ()

    def begun(self, trained: str, pooled: str) -> "Spaces":
        """With a space that is trained on one day and fills the pools from another day on.

        Pools that it overwrites no longer start a space.
        """
        kept = {ds for ds in self.pooled if not pooled <= ds <= trained}
        return Spaces(
            trained=tuple(sorted({*self.trained, trained})), pooled=tuple(sorted({*kept, pooled}))
        )

    def first_daily(self, home: Home) -> str:
        """The first day that the daily pipeline publishes in the present space."""
        return shift_day(self.trained[-1], 1) if self.trained else home.start_ds


def load(home: Path) -> Spaces:
    """The spaces of a home.

    Raises:
        ManifestCorrupt: the file cannot be read back.
    """
    path = HomePaths(home).spaces
    if not path.exists():
        return Spaces()
    try:
        return Spaces.model_validate_json(path.read_text())
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ManifestCorrupt(
            "the spaces of the home cannot be read",
            where=str(path),
            found=str(error),
            hint="bring the file back from a copy of the home; remove it where derm bootstrap was "
            "never run here",
        ) from error


def begin(home: Path, *, trained: str, pooled: str) -> None:
    """Record a space before its first step runs. The same again changes nothing."""
    spaces = load(home).begun(trained, pooled)
    write_atomic(HomePaths(home).spaces, spaces.model_dump_json(indent=2) + "\n")
