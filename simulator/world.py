"""The world as a whole: any of its days, alone, as four tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from simulator.calendar import Calendar
from simulator.config import WorldConfig
from simulator.history import digests, history
from simulator.population import Population
from simulator.spec import world_spec
from simulator.tables import EventWriter, pins_table, users_table


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldDay:
    """One day. `truth` holds the hidden probabilities of every row and is no model's input.

    Attributes:
        more: further tables of the data set, by name.
    """

    events: pa.Table
    users: pa.Table
    pins: pa.Table
    truth: pa.Table
    more: Mapping[str, pa.Table] = field(default_factory=dict)


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
        self._calendar = Calendar(first_ds, config.days)
        self._population = Population(config, seed)
        self._digests = digests(self._population, cache)
        self._writer = EventWriter(self.spec, self._population, self._calendar.epoch_us)

    def day(self, ds: str) -> WorldDay:
        """The tables of a day.

        Raises:
            ValueError: the world has not begun, or is over.
        """
        number = self._calendar.number(ds)
        past = history(self._population, number, self._digests)
        log = self._digests.simulate(number)
        return WorldDay(
            events=self._writer.events(number, log, past),
            users=users_table(self.spec, self._population, past),
            pins=pins_table(self.spec, self._population, past),
            truth=self._writer.truth(number, log, past),
        )
