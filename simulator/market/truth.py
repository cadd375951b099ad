"""What is true in a market, for experiments: any user, any Pin, any request of any day.

Nothing that ranks may open this module (a contract of pyproject.toml): the log says what was shown
and what followed, the truth what would have followed anything else. Legend: N exposures, R
requests, C candidates of a request.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulator.market.behaviour import campaigns_of, logging_policy
from simulator.market.chances import Chances, attributed, attributed_by_cause, chances_of
from simulator.market.config import MarketConfig
from simulator.market.exposures import Exposures, Requests
from simulator.market.outcomes import Outcomes, draw_clicks, draw_outcomes
from simulator.market.population import MarketPopulation
from simulator.market.visits import requests_of
from simulator.population import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a ranker says of every candidate [R, C] of a day's requests.

    Attributes:
        click: chance of a click.
        buys: chance that a click converts.
    """

    click: Floats
    buys: Floats


class Truth:
    """The hidden side of a market.

    Args:
        world: the market, as its configuration and its seed make it.
    """

    def __init__(self, world: MarketPopulation) -> None:
        self.world = world
        self.campaigns = campaigns_of(world)
        self._asked = lru_cache(maxsize=2)(lambda day: requests_of(world, day))

    @classmethod
    def of(cls, config: MarketConfig, seed: int) -> "Truth":
        """The truth of a market."""
        return cls(MarketPopulation(config, seed))

    def requests(self, day: int) -> Requests:
        """Every request of a day, with its candidates; no ranker changes them."""
        return self._asked(day)

    def exposures(self, day: int, request: Ints, slot: Ints, pin: Ints) -> Exposures:
        """Pins [N] as if they were shown in slots of requests of a day."""
        page = self.world.config.page
        return Exposures.of(day, self.requests(day), request, slot, pin, page=page)

    def chances(self, shown: Exposures) -> Chances:
        """The chances of what may follow, whether or not it was ever shown."""
        return chances_of(self.world, shown)

    def sales(self, chances: Chances) -> Floats:
        """Chance [N] of a conversion that is attributed to the exposure."""
        return attributed(self.world.config.conversion, chances)

    def sales_by_cause(self, chances: Chances) -> tuple[Floats, Floats]:
        """Chance [N] of an attributed conversion after a click, and after none."""
        return attributed_by_cause(self.world.config.conversion, chances)

    def clicks(self, shown: Exposures, chances: Chances) -> npt.NDArray[np.bool_]:
        """Whether each exposure [N] is clicked."""
        return draw_clicks(self.world, shown, chances.click)

    def outcomes(self, shown: Exposures, chances: Chances) -> Outcomes:
        """What follows; where the log showed the same in the same place, what followed there."""
        return draw_outcomes(self.world, shown, chances)

    def oracle(self, day: int, rows: npt.NDArray | slice = slice(None)) -> Predictions:
        """True chances of the candidates of chosen requests, as if in the first ad slot."""
        requests = self.requests(day)
        number = np.arange(len(requests))[rows]
        pins = requests.candidates_RC[number]
        request = np.repeat(number, pins.shape[1])
        slot = np.full(len(request), self.world.config.auction.slots[0])
        shown = self.exposures(day, request, slot, np.maximum(pins, 0).reshape(-1).astype(np.int64))
        chances = self.chances(shown)
        return Predictions(
            click=chances.click.reshape(pins.shape), buys=chances.converts.reshape(pins.shape)
        )

    def policy(self, day: int) -> Predictions:
        """What the ranker that made the log says."""
        click, buys = logging_policy(self.world, day, self.requests(day))
        return Predictions(click=click, buys=buys)
