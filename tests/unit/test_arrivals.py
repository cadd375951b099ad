"""The experiment on conversions that a training knows, where the answer is known."""

from pathlib import Path

import pytest

from experiments.arrivals import Options, design
from experiments.harness.design import Cell

RECIPE = """
import dataclasses
from jobs.recipes import toy
from simulator.config import ConversionConfig
from tests.data_fixtures import tiny_world

def prompt():
    conversion = ConversionConfig(bias=-1.0, delayed=0.0)
    return dataclasses.replace(toy(), simulation=tiny_world(conversion=conversion))

def late():
    conversion = ConversionConfig(bias=-1.0, delay_mean_days=4.0)
    return dataclasses.replace(toy(), simulation=tiny_world(conversion=conversion))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "worlds.py"
    path.write_text(RECIPE)
    return path


def shares(recipe: Path, world: str) -> dict[str, tuple[float, float]]:
    made = design(Options(recipe=f"{recipe}:{world}", window=2, days=2))
    found = {}
    for variant in made.variants:
        rows = made.run(Cell(data="simulated", variant=variant, seed=1))
        [metrics] = rows[variant.name].rounds
        found[variant.name] = (metrics["window"], metrics["days_after"])
    return found


def test_without_delay_everything_is_known(recipe: Path) -> None:
    assert set(shares(recipe, "prompt").values()) == {(1.0, 1.0)}


def test_a_world_that_has_just_begun_hides_what_an_older_one_shows(recipe: Path) -> None:
    found = shares(recipe, "late")
    window, after = found["the first day"]
    assert window < 0.5
    assert window < 0.75 * after
    assert window < 0.75 * found["12 days old"][0]
