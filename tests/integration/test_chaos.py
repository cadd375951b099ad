"""Processes of a day and of a repair killed at random moments: the bits are those of a quiet run.

DERM_TEST_CHAOS says how many cases are tried; tests/chaos/run.py plays them through Airflow and
through a cluster too.
"""

import os
from collections.abc import Iterator

import pytest

from jobs.services import local
from jobs.settings import Settings
from tests.chaos.lane import Lane
from tests.chaos.run import draw, struck

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis]

_CASES = int(os.environ.get("DERM_TEST_CHAOS", "2"))


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    made = Lane(folder=tmp_path_factory.mktemp("chaos"), through="process", days=1)
    yield made
    local.stop(Settings(home=made.home))


@pytest.fixture(scope="module")
def expected(lane: Lane) -> dict[str, dict[str, str]]:
    """What nobody disturbs."""
    return dict(lane.prepare())


@pytest.mark.parametrize("number", range(_CASES))
def test_the_same_command_restores_every_bit(
    lane: Lane, expected: dict[str, dict[str, str]], number: int
) -> None:
    _, run, blows = list(draw(1, _CASES, "process"))[number]
    result = struck(lane, number, run, blows, expected[run])
    assert result.exit_codes[-1] == 0, lane.log.read_text()[-4000:]
    assert result.differing == ()
