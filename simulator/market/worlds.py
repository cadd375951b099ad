"""Simulated worlds by the name of their data set: what each declares, and how it is made."""

from pathlib import Path
from typing import Protocol

from feature_store.contracts.datasets import DatasetSpec
from simulator.config import toy as toy_world
from simulator.market.config import MARKETS, MarketConfig, Simulation
from simulator.market.config import toy as toy_market
from simulator.market.spec import market_spec
from simulator.spec import world_spec
from simulator.world import World, WorldDay


class Simulated(Protocol):
    """A world whose days can be asked for."""

    def day(self, ds: str) -> WorldDay:
        """The tables of a day.

        Raises:
            ValueError: the world has not begun, or is over.
        """


def smallest(name: str) -> Simulation:
    """The configuration that a world has where nobody says another."""
    return MARKETS[name](toy_market()) if name in MARKETS else toy_world()


def declared(name: str, config: Simulation) -> DatasetSpec:
    """The declaration of a world's tables."""
    return market_spec(name, config) if isinstance(config, MarketConfig) else world_spec(config)


def made(
    name: str, config: Simulation, seed: int, first_ds: str, *, cache: Path | None = None
) -> Simulated:
    """A world that begins on a calendar day; `cache`: where digests of its days are kept."""
    if isinstance(config, MarketConfig):
        from simulator.market.world import Market

        return Market(name, config, seed, first_ds, cache)
    return World(config, seed, first_ds, cache=cache)
