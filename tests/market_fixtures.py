"""A tiny market, and some of its days."""

from functools import cache

from feature_store.contracts.base import days_between, shift_day
from simulator.market.config import MARKETS, MarketConfig, MarketConversions
from simulator.market.population import MarketPopulation
from simulator.market.world import Market
from simulator.world import WorldDay
from tests.data_fixtures import FIRST

LAST = 16
DAYS = days_between(FIRST, shift_day(FIRST, LAST))


def tiny_market(name: str = "market", **changes: object) -> MarketConfig:
    """A market of about 2,400 events a day whose history is short."""
    values: dict[str, object] = {
        "users": 60,
        "pins": 150,
        "ads": 60,
        "advertisers": 8,
        "content_dim": 32,
        "days": 40,
        "history_days": 12,
        "context_days": 6,
        "sequence_len": 20,
        "block_users": 25,
        "conversion": MarketConversions(bias=-1.5, click_days=6),
    }
    return MARKETS[name](MarketConfig(**(values | changes)))  # type: ignore[arg-type]


@cache
def population(name: str = "market") -> MarketPopulation:
    """A larger market, for what needs numbers."""
    return MarketPopulation(tiny_market(name, users=600, pins=1500, ads=300), 3)


@cache
def market_days() -> dict[str, WorldDay]:
    """The first days of the tiny market, in order."""
    market = Market("market", tiny_market(), 7, FIRST)
    return {ds: market.day(ds) for ds in DAYS}
