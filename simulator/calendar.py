"""The days of a world, by date and by number."""

import datetime as dt
from dataclasses import dataclass

from simulator.outcomes import DAY_US


@dataclass(frozen=True, slots=True)
class Calendar:
    """A world of `days` days, of which `first_ds` is day 0."""

    first_ds: str
    days: int

    @property
    def epoch_us(self) -> int:
        """Midnight of day 0, microseconds since 1970-01-01."""
        return (self._first - dt.date(1970, 1, 1)).days * DAY_US

    def number(self, ds: str) -> int:
        """Which day of the world a date is.

        Raises:
            ValueError: the world has not begun, or is over.
        """
        number = (dt.date.fromisoformat(ds) - self._first).days
        if not 0 <= number < self.days:
            last = self._first + dt.timedelta(days=self.days - 1)
            raise ValueError(f"expected a day from {self._first} to {last}, found {ds}")
        return number

    @property
    def _first(self) -> dt.date:
        return dt.date.fromisoformat(self.first_ds)
