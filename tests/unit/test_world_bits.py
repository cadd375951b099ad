"""The worlds that were there first keep their bits: results on them stay comparable."""

import pytest

from feature_store.contracts.base import shift_day
from feature_store.lake.lake import rows_digest
from simulator.config import WorldConfig, toy
from simulator.world import World
from tests.data_fixtures import FIRST, tiny_world

TABLES = ("events", "users", "pins", "truth")


@pytest.mark.parametrize(
    ("config", "number", "digests"),
    [
        pytest.param(
            tiny_world(),
            34,
            (
                "0254b7830df0888af38ad2699b9cdfd3",
                "bd21973fc38706a3676fe87c6ba4850d",
                "e632c0778f5c1aa5bb38262d9c1561b3",
                "f069edce96fa747b429bf5f2f4a3894f",
            ),
            id="tiny",
        ),
        pytest.param(
            toy(),
            2,
            (
                "55784c0a081492d2b3e26ecfa1bce70d",
                "f836c8afdd5e8c5496644d14b640d3b1",
                "31bb7d3db942fcf15684981f6919e2cf",
                "1a65292419f1f2cfb866e0634589ea68",
            ),
            id="toy",
        ),
    ],
)
def test_a_day_is_what_it_was(config: WorldConfig, number: int, digests: tuple[str, ...]) -> None:
    day = World(config, 7, FIRST).day(shift_day(FIRST, number))
    assert tuple(rows_digest(getattr(day, name)) for name in TABLES) == digests
