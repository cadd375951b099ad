"""One ranker for all surfaces against one for each, on a tiny market."""

import dataclasses

import numpy as np
import pytest

from experiments.surfaces import trial
from experiments.surfaces.grid import MEASURES, VARIANTS, design
from experiments.surfaces.worlds import SurfaceDays, market_days
from tests.architecture.sources import ROOT

TINY = SurfaceDays(recipe=f"{ROOT}/tests/model_fixtures/tiny_market.py:build", before=2, learn=1)
OF = {v.name: v for v in VARIANTS}


@pytest.fixture(scope="module")
def world():
    return market_days("market", 0, TINY)


def test_rows_of_a_surface_keep_their_users_and_pins(world):
    batch = world.batches(TINY.learned[0])[0]
    at = np.flatnonzero(batch["surface"] == 2)
    some = trial.taken(batch, at)
    assert set(some) == set(batch)
    for entity, name in (("user", "country"), ("pin", "content")):
        want = batch[name][batch[f"row:{entity}"][at]]
        np.testing.assert_array_equal(some[name][some[f"row:{entity}"]], want)
        assert len(some[name]) == len(np.unique(some[f"row:{entity}"]))
    np.testing.assert_array_equal(some["ts"], batch["ts"][at])


def test_chances_are_those_of_the_rows(world):
    ds = TINY.held_out[1]
    labels = np.concatenate([b["label:click"] for b in world.batches(ds)])
    chances = world.chances(ds)
    assert chances.shape == labels.shape
    assert chances[labels == 1].mean() > chances[labels == 0].mean()


@pytest.mark.parametrize("name", ["a ranker for each", "unified"])
def test_every_measure_is_a_number_and_the_same_again(world, name):
    found = trial.measured(OF[name], "market", 0, TINY)
    assert set(found) == {m.name for m in MEASURES}
    assert all(np.isfinite(value) for value in found.values())
    if name != "unified":
        return
    again = trial.measured(OF[name], "market", 0, TINY)
    timed = {"rows_per_s"}
    assert {k: v for k, v in found.items() if k not in timed} == {
        k: v for k, v in again.items() if k not in timed
    }


def test_a_third_of_the_experts_is_about_as_many_numbers(world):
    sizes = {
        name: trial.Trial(world, OF[name]).parameters
        for name in ("a ranker for each", "for each, a third", "unified")
    }
    assert sizes["a ranker for each"] > 2 * sizes["unified"]
    assert sizes["for each, a third"] < sizes["a ranker for each"]


def test_the_design_holds_together():
    made = design(dataclasses.replace(TINY, learn=2))
    assert made.baseline.apart
    assert [v.name for v in made.variants if v.placebo] == ["for each, again"]
