"""No example knows its own outcome: counts of a day are features of later days only."""

import numpy as np
import pytest

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.manifests import Artifact
from feature_store.reading.examples import DayExamples
from jobs.engine.runner import resolve_inputs
from jobs.pipelines import catalog
from tests.model_fixtures.world import FIRST, World, next_day

SECOND = next_day(FIRST)
THIRD = next_day(SECOND)
COUNTS = ("lake:counts/user", "lake:counts/pin")


def two_days(root):
    world = World(root)
    for ds in (FIRST, SECOND):
        world.add_day(ds)
    return world


def test_the_events_of_a_day_are_features_of_the_next_day_only(tmp_path):
    first, other = two_days(tmp_path / "a"), two_days(tmp_path / "b")
    events = other.spec.events_table()
    other.lake.overwrite(events, SECOND, other.lake.read(events, SECOND).slice(50))
    other.count(SECOND)
    for world in (first, other):
        world.add_day(THIRD)
    for ds, same in ((FIRST, True), (SECOND, True), (THIRD, False)):
        inputs = [features_of(world, ds) for world in (first, other)]
        assert inputs[0].keys() == inputs[1].keys()
        equal = [np.array_equal(inputs[0][n], inputs[1][n], equal_nan=True) for n in inputs[0]]
        assert all(equal) == same, ds
    steps = [catalog.step(name) for name in ("train", "infer")]
    for ds in (FIRST, SECOND, THIRD):
        for step in steps:
            read = {a.name: a.ds for a in counts_read(first, step, ds)}
            expected = {} if ds == FIRST else dict.fromkeys(COUNTS, shift_day(ds, -1))
            assert read == expected


def features_of(world, ds):
    """Every feature of every user and Pin, as a model would see them on a day."""
    examples = DayExamples(world.lake, world.spec, ds, "ctr", world.context(ds, "ctr").counting)
    return {
        name: values
        for table in examples.entities.values()
        for name, values in table.take(np.arange(len(table) + 1)).items()
    }


def counts_read(world, step, ds):
    """The counts among the inputs that the runner would record."""
    for day in (FIRST, SECOND, THIRD):
        snapshot = Artifact(name="snapshot:ctr", ds=day, digest="s")
        world.record("train", day, "ctr", (snapshot,))
    found = resolve_inputs(world.context(ds, "ctr"), step)
    return [a for a in found if a.name in COUNTS]


def test_training_needs_the_counts_of_yesterday(tmp_path):
    world = two_days(tmp_path)
    world.manifests.remove("count", FIRST, None)
    world.train(FIRST)
    with pytest.raises(MissingInput) as caught:
        world.train(SECOND)
    assert caught.value.hint == f"derm count --ds {FIRST}"
