"""The world as a whole: any of its days, alone, as four tables."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from simulator.config import WorldConfig
from simulator.history import DigestStore
from simulator.outcomes import DAY_US
from simulator.population import Population
from simulator.spec import world_spec
from simulator.tables import EventWriter, pins_table, users_table


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldDay:
    """One day. `truth` holds the hidden probabilities of every row and is no model's input."""

    events: pa.Table
    users: pa.Table
    pins: pa.Table
    truth: pa.Table


class World:
    """A seeded world that begins on a calendar day.

    A day is a function of configuration, seed and its number. Its features look at earlier days,
    which are simulated on the way unless their digests are known.

    Args:
        first_ds: the calendar date of day 0.
        cache: where digests of days are kept; None keeps them in memory only. The folder must
            belong to this configuration and seed.
    """

    def __init__(
        self, config: WorldConfig, seed: int, first_ds: str, *, cache: Path | None = None
    ) -> None:
        self.config = config
        self.spec = world_spec(config)
        self._first = dt.date.fromisoformat(first_ds)
        self._population = Population(config, seed)
        self._digests = DigestStore(self._population, cache)
        epoch_us = (self._first - dt.date(1970, 1, 1)).days * DAY_US
        self._writer = EventWriter(self.spec, self._population, epoch_us)

    def day_number(self, ds: str) -> int:
        """Which day of the world a date is.

        Raises:
            ValueError: the world has not begun, or is over.
        """
        number = (dt.date.fromisoformat(ds) - self._first).days
        if not 0 <= number < self.config.days:
            last = self._first + dt.timedelta(days=self.config.days - 1)
            raise ValueError(f"expected a day from {self._first} to {last}, found {ds}")
        return number

    def day(self, ds: str) -> WorldDay:
        """The tables of a day.

        Raises:
            ValueError: the world has not begun, or is over.
        """
        number = self.day_number(ds)
        history = self._digests.history(number)
        log = self._digests.simulate(number)
        return WorldDay(
            events=self._writer.events(number, log, history),
            users=users_table(self.spec, self._population, history),
            pins=pins_table(self.spec, self._population, history),
            truth=self._writer.truth(number, log, history),
        )
