"""A recipe whose markets are a few dozen users: for tests of what is done with markets."""

import dataclasses

from jobs.recipes import Recipe, toy


def build() -> Recipe:
    """The toy recipe, smaller."""
    base = toy()
    market = dataclasses.replace(
        base.market, users=60, pins=200, ads=60, advertisers=10, history_days=90
    )
    return dataclasses.replace(base, name="tiny", market=market)
