"""`derm train` and `derm infer` on a tiny lake: the contract of both steps."""

import dataclasses

import numpy as np
import pytest
import torch

from feature_store.contracts.errors import GuardFailed, InputError, ManifestCorrupt, MissingInput
from feature_store.contracts.tables import raw_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.schemas import unpack
from feature_store.reading.examples import Order
from jobs.engine.snapshots import CHECKPOINT, MODEL, OPTIMIZER, SnapshotStore
from jobs.steps.infer import Embedder, infer_day
from jobs.steps.training_plan import plan_training
from jobs.steps.training_run import TrainingRun
from models.derm.config import LossConfig
from models.training.checkpoint import read_tensors, write_tensors
from models.training.loop import Trainer
from tests.model_fixtures.world import FIRST, World, next_day, small_recipe

SECOND = next_day(FIRST)
THIRD = next_day(SECOND)


def new_world(root, recipe=None, *, days=(FIRST, SECOND), first=FIRST) -> World:
    world = World(root, recipe, first=first)
    for ds in days:
        world.add_day(ds)
    return world


def snapshot(world, outcome, upstream="ctr"):
    store = SnapshotStore(world.root, upstream)
    return store, store.of(outcome.outputs[0])


@pytest.fixture
def world(tmp_path):
    return new_world(tmp_path / "home")


def test_a_lineage_of_two_days(world):
    store, first = snapshot(world, world.train(FIRST))
    outcome = world.train(SECOND)
    _, second = snapshot(world, outcome)
    assert first.parent_id is None
    assert first.space_id == f"ctr-{first.snapshot_id}"
    assert (second.parent_id, second.space_id) == (first.snapshot_id, first.space_id)
    assert second.seen_days == (FIRST, SECOND)
    assert outcome.metrics["rows"] == 400
    sketch = store.read(second, MODEL)["sketch.total"]
    assert float(sketch) == 400 * 0.5 + 400  # what was counted the day before weighs half
    steps = store.read(second, OPTIMIZER)["step/model.user.dhen.norm.weight"]
    assert steps.item() == 7 + 7 + 1


def test_it_learns_what_there_is_to_learn(tmp_path):
    days = tuple(f"2025-03-0{i}" for i in range(1, 7))
    world = new_world(tmp_path, days=(), first=days[-1])
    for ds in days:
        world.add_day(ds, rows=2500)
    metrics = world.train(days[-1]).metrics
    assert metrics["days"] == 6
    assert metrics["auc"] > 0.6
    assert metrics["ne"] < 1


def test_only_validated_days_of_the_window_are_trained_on(tmp_path):
    world = new_world(
        tmp_path, small_recipe(window_days=2), days=(FIRST, SECOND, THIRD), first=THIRD
    )
    _, found = snapshot(world, world.train(THIRD))
    assert found.seen_days == (SECOND, THIRD)
    world.manifests.remove("validate", SECOND, None)
    _, found = snapshot(world, world.train(THIRD))
    assert found.seen_days == (THIRD,)


@pytest.mark.parametrize("upstream", ["ctr", "cvr"])
def test_two_homes_give_the_same_bits(tmp_path, upstream):
    digests = []
    for name in ("a", "b"):
        world = new_world(tmp_path / name)
        trained = [world.train(ds, upstream).outputs[0] for ds in (FIRST, SECOND)]
        embedded = world.infer(SECOND, upstream).outputs
        digests.append([a.digest for a in (*trained, *embedded)])
    assert digests[0] == digests[1]


def test_a_retry_uses_the_snapshot_that_is_there(world, monkeypatch):
    first = world.train(FIRST)
    monkeypatch.setattr(TrainingRun, "run", lambda _: pytest.fail("trained twice"))
    assert world.train(FIRST).outputs == first.outputs


def test_other_data_gives_another_snapshot(world):
    first = world.train(FIRST)
    world.add_day(FIRST, rows=350)
    assert world.train(FIRST).outputs[0].uri != first.outputs[0].uri


class Killed(BaseException):
    """What a killed process looks like from inside."""


STEPS = 7  # of a day


def train_until(world, monkeypatch, steps):
    """Train the second day on a window of two, killed after some steps; the checkpoint it left."""
    original, taken = Trainer._step, []

    def killed_after(self, batch):
        if len(taken) == steps:
            raise Killed
        taken.append(1)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", killed_after)
        with pytest.raises(Killed):
            world.train(SECOND)
    (draft,) = (world.root / "snapshots" / "ctr").glob(".*")
    (checkpoint,) = draft.iterdir()
    assert checkpoint.name == CHECKPOINT
    return checkpoint


def train_on(world, monkeypatch):
    """Train the second day to its end; what came out, and the steps that it took."""
    original, taken = Trainer._step, []
    with monkeypatch.context() as patch:
        counted = lambda self, batch: taken.append(1) or original(self, batch)  # noqa: E731
        patch.setattr(Trainer, "_step", counted)
        return world.train(SECOND), len(taken)


MIXED = LossConfig(random_negatives=20, q_estimator="exact")


@pytest.mark.parametrize(
    ("every", "killed", "left", "loss"),
    [
        (2, 3, 2 * STEPS - 2, MIXED),
        (2, 6, 2 * STEPS - 6, LossConfig()),
        (2, 11, 2 * STEPS - 11, MIXED),
        (small_recipe().training.checkpoint_steps, STEPS + 2, STEPS, LossConfig()),
    ],
)
def test_an_interrupted_attempt_ends_with_the_same_bits(
    tmp_path, monkeypatch, every, killed, left, loss
):
    recipe = small_recipe(checkpoint_steps=every, window_days=3)
    model = dataclasses.replace(recipe.model, loss=loss)
    recipe = dataclasses.replace(recipe, model=model)
    days = (FIRST, SECOND)
    undisturbed = new_world(tmp_path / "a", recipe, days=days, first=SECOND).train(SECOND)
    world = new_world(tmp_path / "b", recipe, days=days, first=SECOND)
    train_until(world, monkeypatch, killed)
    outcome, steps = train_on(world, monkeypatch)
    assert steps == left
    assert outcome.outputs[0].digest == undisturbed.outputs[0].digest
    for number in ("loss", "rows"):
        assert outcome.metrics[number] == undisturbed.metrics[number]
    assert list((world.root / "snapshots" / "ctr").glob(".*")) == []


def test_a_checkpoint_of_another_number_of_processes_is_left_aside(tmp_path, monkeypatch, caplog):
    recipe = small_recipe(checkpoint_steps=2, window_days=3)
    days = (FIRST, SECOND)
    undisturbed = new_world(tmp_path / "a", recipe, days=days, first=SECOND).train(SECOND)
    world = new_world(tmp_path / "b", recipe, days=days, first=SECOND)
    checkpoint = train_until(world, monkeypatch, STEPS + 3)
    tensors, metadata = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, metadata | {"ranks": "2"})
    with caplog.at_level("INFO", logger="test"):
        outcome, steps = train_on(world, monkeypatch)
    assert "its checkpoint is of 2 processes and these are 1" in caplog.text
    assert steps == 2 * STEPS
    assert outcome.outputs[0].digest == undisturbed.outputs[0].digest
    assert outcome.metrics["rows"] == undisturbed.metrics["rows"]


@pytest.mark.parametrize(
    ("guard", "number"), [("min_effective_rank", "effective_rank_user"), ("max_auc_drop", "auc")]
)
def test_a_refused_snapshot_leaves_nothing_behind(world, guard, number):
    world.train(FIRST)
    bound = {"min_effective_rank": 1e9, "max_auc_drop": -1.0}[guard]
    guards = dataclasses.replace(world.recipe.guards, **{guard: bound})
    world.recipe = dataclasses.replace(world.recipe, guards=guards)
    before = sorted((world.root / "snapshots" / "ctr").iterdir())
    with pytest.raises(GuardFailed, match=f"{number} ") as caught:
        world.train(SECOND)
    assert "derm" in caught.value.hint
    assert sorted((world.root / "snapshots" / "ctr").iterdir()) == before
    assert world.manifests.get("train", SECOND, "ctr") is None


def test_a_loss_that_is_not_finite_is_refused(world, monkeypatch):
    monkeypatch.setattr(Trainer, "_step", lambda *_: [64.0, *[float("nan")] * 3])
    with pytest.raises(GuardFailed, match="a finite loss"):
        world.train(FIRST)


def test_yesterday_must_be_trained(world):
    with pytest.raises(MissingInput) as caught:
        world.train(SECOND)
    assert caught.value.hint == f"derm train --ds {FIRST} --upstream ctr"


def test_a_lost_snapshot_is_named(world):
    outcome = world.train(FIRST)
    store, manifest = snapshot(world, outcome)
    store.folder(manifest.snapshot_id).rename(world.root / "elsewhere")
    with pytest.raises(MissingInput, match=manifest.snapshot_id):
        world.train(SECOND)


def test_a_damaged_file_is_named(world):
    store, manifest = snapshot(world, world.train(FIRST))
    path = store.folder(manifest.snapshot_id) / MODEL
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestCorrupt, match="damaged") as caught:
        world.infer(FIRST)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("text", ["", "{", '{"snapshot_id": "x"}'])
def test_a_damaged_manifest_is_named(world, text):
    store, manifest = snapshot(world, world.train(FIRST))
    path = store.folder(manifest.snapshot_id) / "manifest.json"
    path.write_text(text)
    with pytest.raises(ManifestCorrupt):
        world.train(SECOND)


def test_a_changed_model_needs_a_new_space(world):
    world.train(FIRST)
    model = dataclasses.replace(world.recipe.model, head_hidden=(8,))
    world.recipe = dataclasses.replace(world.recipe, model=model)
    with pytest.raises(InputError, match="another model"):
        world.train(SECOND)


def test_a_day_is_never_trained_on_twice(world):
    outcome = world.train(FIRST)
    world.record("train", SECOND, "ctr", outcome.outputs)
    world.add_day(THIRD)
    world.train(SECOND)
    again = world.manifests.get("train", SECOND, "ctr").outputs[0]
    world.record("train", FIRST, "ctr", (again.model_copy(update={"ds": FIRST}),))
    with pytest.raises(InputError, match="already seen"):
        world.train(SECOND)


def test_the_raw_tables(world):
    world.train(FIRST)
    users, pins = world.infer(FIRST).outputs
    events = world.lake.read(world.spec.events_table(), FIRST)
    assert users.rows == pins.rows == len(events)
    table = raw_table("ctr", "user")
    properties = world.lake.properties(table.name)
    assert properties == {"dtype": "float32", "dim": "64", "buckets": "3"}
    seen = []
    for bucket in range(3):
        rows = world.lake.read(table, FIRST, bucket=bucket)
        assert set(bucket_of(rows.column("entity_id"), 3)) <= {bucket}
        names = ("entity_id", "ts", "event_id")
        keys = list(zip(*(rows.column(c).to_pylist() for c in names), strict=True))
        assert keys == sorted(keys)
        vectors = unpack(rows.column("embedding"), 64)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        seen += rows.column("event_id").to_pylist()
    assert sorted(seen) == sorted(events.column("event_id").to_pylist())


def test_embeddings_are_those_of_the_model(world):
    world.train(FIRST)
    world.infer(FIRST)
    run = TrainingRun(world.context(SECOND, "ctr"), *plan_of(world, SECOND))
    examples = run._examples(FIRST)
    (batch,) = examples.batches(Order(batch_rows=10_000))
    expected = run.trainer.embed(batch)["pin"]
    events = world.lake.read(world.spec.events_table(), FIRST)
    by_event = dict(zip(events.column("event_id").to_pylist(), expected, strict=True))
    raw = world.lake.read(raw_table("ctr", "pin"), FIRST)
    found = torch.from_numpy(unpack(raw.column("embedding"), 64).copy())
    wanted = torch.stack([by_event[e] for e in raw.column("event_id").to_pylist()])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def plan_of(world, ds):
    store = SnapshotStore(world.root, "ctr")
    return plan_training(world.context(ds, "ctr"), store), store


def last_of_each(rows):
    found = {}
    for row in rows.to_pylist():
        found[row["entity_id"]] = row
    return found


def test_choosing_the_last_row_first_changes_nothing_of_the_pool(world):
    world.train(FIRST)
    world.infer(FIRST)
    table = raw_table("ctr", "user")
    every = world.lake.read(table, FIRST)
    inference = dataclasses.replace(world.recipe.inference, rows="last")
    world.recipe = dataclasses.replace(world.recipe, inference=inference)
    users = world.infer(FIRST).outputs[0]
    only_last = world.lake.read(table, FIRST)
    assert users.rows == len(last_of_each(every)) < len(every)
    assert last_of_each(only_last) == last_of_each(every)


def test_unknown_entities_are_counted_and_share_a_vector(world):
    users = world.lake.read(world.spec.users_table(), FIRST)
    world.lake.overwrite(world.spec.users_table(), FIRST, users.slice(0, 30))
    world.train(FIRST)
    metrics = world.infer(FIRST).metrics
    raw = world.lake.read(raw_table("ctr", "user"), FIRST)
    cold = [r["embedding"] for r in raw.to_pylist() if int(r["entity_id"][4:]) >= 30]
    assert metrics["cold_rows_user"] == len(cold) > 0
    assert len(set(cold)) == 1


def test_back_inference_embeds_a_past_day_with_the_newest_snapshot(world):
    world.train(FIRST)
    store, newest = snapshot(world, world.train(SECOND))
    context = world.context(SECOND, "ctr")
    embedder = Embedder.load(context, store, newest)
    for ds in (FIRST, SECOND):
        artifacts, _ = infer_day(context, embedder, ds)
        assert {a.ds for a in artifacts} == {ds}
        raw = world.lake.read(raw_table("ctr", "user"), ds)
        assert set(raw.column("snapshot_id").to_pylist()) == {newest.snapshot_id}
    direct = world.infer(SECOND).outputs
    assert [a.digest for a in direct] == [a.digest for a in artifacts]


def test_nothing_temporary_remains(world):
    world.train(FIRST)
    world.infer(FIRST)
    assert list((world.root / "scratch").iterdir()) == []
