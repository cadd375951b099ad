"""What a day is scored with, and on what: yesterday's model, before it has seen the day."""

import pyarrow as pa
import pytest

from feature_store.reading.examples import Order
from jobs.engine.snapshots import MODEL, SnapshotStore
from jobs.steps.training_plan import make_plan
from jobs.steps.training_run import TrainingRun, first_window
from tests.model_fixtures.world import FIRST, World, next_day

SECOND = next_day(FIRST)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home")
    for ds in (FIRST, SECOND):
        world.add_day(ds)
    return world


def scored_with(world, outcome, ds):
    """The metrics of a day under the weights of a snapshot."""
    store = SnapshotStore(world.root, "ctr")
    run = TrainingRun(world.context(ds, "ctr"), make_plan(world.context(ds, "ctr"), store), store)
    objective = run.trainer.objective
    objective.load_state_dict(store.read(store.of(outcome.outputs[0]), MODEL))
    batches = run._examples(ds).batches(Order(batch_rows=64))
    return run.trainer.score(batches)["click"]


def test_a_day_is_scored_before_it_is_trained_on(world):
    """Fails when the two passes change places."""
    first = world.train(FIRST)
    second = world.train(SECOND)
    world.record("train", SECOND, "ctr", second.outputs)
    before, after = (scored_with(world, outcome, SECOND) for outcome in (first, second))
    for number in ("auc", "ne", "logloss"):
        assert second.metrics[number] == pytest.approx(before[number], abs=1e-9)
    assert after["logloss"] < before["logloss"]


def test_what_is_fitted_once_knows_no_label_and_no_context_of_the_scored_day(world):
    def fitted():
        return first_window(world.context(SECOND, "ctr"), (FIRST, SECOND), "ctr")

    before, table = fitted(), world.spec.events_table()
    events = world.lake.read(table, SECOND)
    for name, value in (("click", 1), ("good_click", 1), ("position", 1e6)):
        at = events.schema.get_field_index(name)
        column = pa.array([value] * len(events), events.schema.field(at).type)
        events = events.set_column(at, events.schema.field(at), column)
    world.lake.overwrite(table, SECOND, events)
    after = fitted()
    assert after.base_rates == before.base_rates
    assert after.ranges == before.ranges
    assert (after.sample["position"] == before.sample["position"]).all()
