"""What a day is scored with, and on what: yesterday's model, before it has seen the day."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from feature_store.reading.examples import DayExamples, Order
from jobs.engine.snapshots import MODEL, SnapshotStore
from jobs.steps.maturity import scored_with
from jobs.steps.training_plan import plan_training
from jobs.steps.training_run import TrainingRun, first_window
from tests.model_fixtures.world import FIRST, World, next_day, small_recipe

SECOND = next_day(FIRST)
THIRD = next_day(SECOND)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home")
    for ds in (FIRST, SECOND):
        world.add_day(ds)
    return world


def under_the_weights_of(world, outcome, ds):
    """The metrics of a day under the weights of a snapshot."""
    store = SnapshotStore(world.root, "ctr")
    run = TrainingRun(
        world.context(ds, "ctr"), plan_training(world.context(ds, "ctr"), store), store
    )
    objective = run.trainer.objective
    objective.load_state_dict(store.read(store.of(outcome.outputs[0]), MODEL))
    batches = run._examples(ds).batches(Order(batch_rows=64))
    return run.trainer.score(batches)["click"]


def test_a_day_is_scored_before_it_is_trained_on(world):
    """Fails when the two passes change places."""
    first = world.train(FIRST)
    second = world.train(SECOND)
    world.record("train", SECOND, "ctr", second.outputs)
    before, after = (under_the_weights_of(world, outcome, SECOND) for outcome in (first, second))
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


MATURE = {"attribution_days": 1}


@pytest.fixture
def lineage(tmp_path):
    """Three trained days; the labels of a day are final with the end of the next one."""
    world = World(tmp_path / "home")
    world.spec = world.spec.model_copy(update=MATURE)
    for ds in (FIRST, SECOND, THIRD):
        world.add_day(ds)
    return world, [world.train(ds, "cvr") for ds in (FIRST, SECOND, THIRD)]


def test_a_day_is_measured_again_when_its_labels_are_final(lineage):
    """By the snapshot that scored it, on the same impressions, with what became of them."""
    world, (first, second, third) = lineage
    found = third.metrics
    assert found["mature_day"] == SECOND
    assert found["rows_mature"] == second.metrics["scored_rows"]
    store, context = SnapshotStore(world.root, "cvr"), world.context(SECOND, "cvr")
    run = TrainingRun(context, plan_training(context, store), store)
    objective = run.trainer.objective
    objective.load_state_dict(store.read(store.of(first.outputs[0]), MODEL))

    def auc(known_by):
        counting = context.counting
        examples = DayExamples(world.lake, world.spec, SECOND, "cvr", counting, known_by=known_by)
        order = Order(batch_rows=64, rows="impressions")
        return run.trainer.score(examples.batches(order))["checkout"]["auc"]

    assert found["auc_mature"] == pytest.approx(auc(THIRD), abs=1e-9)
    assert second.metrics["auc"] == pytest.approx(auc(""), abs=1e-9)
    assert world.train(THIRD, "cvr").metrics["auc_mature"] == found["auc_mature"]


def test_a_day_that_no_snapshot_scored_is_not_measured_again(lineage):
    _, (first, second, _) = lineage
    for outcome in (first, second):  # before the space, and the day that began it
        assert outcome.metrics["mature_day"] is None
        assert outcome.metrics["auc_mature"] is None


def test_where_labels_are_final_at_once_nothing_is_measured_again(world):
    world.train(FIRST)
    assert world.train(SECOND).metrics["mature_day"] is None


def test_a_snapshot_that_retention_took_is_not_asked(lineage):
    world, (first, *_) = lineage
    store, context = SnapshotStore(world.root, "cvr"), world.context(THIRD, "cvr")
    assert scored_with(context, store, SECOND) == store.of(first.outputs[0])
    shutil.rmtree(store.folder(store.of(first.outputs[0]).snapshot_id))
    assert scored_with(context, store, SECOND) is None


def test_rows_of_a_user_stay_together_where_the_recipe_says_so(tmp_path):
    users = []
    for together in (1, 8):
        world = World(tmp_path / str(together), small_recipe(together=together))
        world.add_day(FIRST)
        ctx, store = world.context(FIRST, "ctr"), SnapshotStore(world.root, "ctr")
        plan = plan_training(ctx, store)
        run = TrainingRun(ctx, plan, store)
        batches = run._batches(plan.phases[-1])
        users.append(np.mean([len(np.unique(b["key:user"])) for b in batches]))
    assert users[1] < users[0] / 1.5
