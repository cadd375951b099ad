"""A market as a whole: any of its days, alone, as tables."""

from pathlib import Path

from simulator.calendar import Calendar
from simulator.market.config import MarketConfig
from simulator.market.history import market_digests, market_history
from simulator.market.population import MarketPopulation
from simulator.market.spec import market_spec
from simulator.market.tables import MarketWriter
from simulator.world import WorldDay


class Market:
    """A seeded market that begins on a calendar day.

    A day is a function of configuration, seed and its number. Its features look at earlier days,
    which are simulated on the way unless their digests are known.

    Args:
        name: of its data set.
        first_ds: the calendar date of day 0.
        cache: where digests of days are kept; None keeps them in memory only. The folder must
            belong to this configuration and seed.
    """

    def __init__(
        self, name: str, config: MarketConfig, seed: int, first_ds: str, cache: Path | None = None
    ) -> None:
        self.config, self.spec = config, market_spec(name, config)
        self._calendar = Calendar(first_ds, config.days)
        self.population = MarketPopulation(config, seed)
        self._digests = market_digests(self.population, cache)
        self._writer = MarketWriter(self.spec, self.population, self._calendar.epoch_us)

    def day(self, ds: str) -> WorldDay:
        """The tables of a day.

        Raises:
            ValueError: the world has not begun, or is over.
        """
        number = self._calendar.number(ds)
        history = market_history(self.population, number, self._digests)
        happened = self._digests.simulate(number)
        writer = self._writer
        return WorldDay(
            events=writer.events(number, happened.log, history),
            users=writer.users(history),
            pins=writer.pins(history),
            truth=writer.truth(number, happened.log, history),
            more={
                "offsite": writer.offsite(number, happened, history),
                "requests": writer.requests(number, happened),
                "campaigns": writer.campaigns(number),
            },
        )
