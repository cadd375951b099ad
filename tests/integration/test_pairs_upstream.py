"""Id tables as an upstream: several passes over a window, the days that follow, embeddings."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from feature_store.contracts.base import shift_day
from feature_store.contracts.tables import raw_table
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.schemas import unpack
from jobs.engine.snapshots import BEST, CHECKPOINT, MODEL, OPTIMIZER, SnapshotStore
from jobs.steps.training_plan import plan_training
from jobs.steps.training_run import TrainingRun
from jobs.upkeep import forget_rows
from models.id_tables.config import IdTablesConfig
from models.nn.config import NegativesConfig
from models.nn.hashing import row_of
from models.training.loop import Trainer
from tests.model_fixtures.pairs import keys
from tests.model_fixtures.world import FIRST, World, small_recipe

DAYS = tuple(shift_day(FIRST, i) for i in range(4))
*_, WINDOW_END, NEXT = DAYS
IDS = UpstreamDeclaration(
    name="ids",
    family="id_tables",
    reads="pairs",
    history_days=2,
    heuristic="acc",
    passes=3,
    published=False,
)
TABLES = IdTablesConfig(
    embedding_dim=8,
    user_rows=509,
    pin_rows=509,
    min_count=2,
    learning_rate=0.2,
    weights="click=1, checkout=4",
    negatives=NegativesConfig(max_in_batch=64, random=16, sketch_width=2**10),
)


def new_world(root: Path, **declared) -> World:
    recipe = dataclasses.replace(small_recipe(), families={"id_tables": TABLES})
    made = World(root, recipe, first=WINDOW_END)
    ids = IDS.model_copy(update=declared)
    made.home = made.home.model_copy(update={"upstreams": (*made.home.upstreams, ids)})
    for ds in DAYS:
        made.add_day(ds, users=40, pins=24)
    return made


def snapshot(world: World, ds: str) -> tuple[dict, dict, dict]:
    """Weights and optimizer state of a day's training, and its numbers."""
    outcome = world.train(ds, "ids")
    store = SnapshotStore(world.root, "ids")
    manifest = store.of(outcome.outputs[0])
    folder = store.folder(manifest.snapshot_id)
    assert not (folder / BEST).exists()
    return store.read(manifest, MODEL), store.read(manifest, OPTIMIZER), manifest.metrics


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return new_world(tmp_path_factory.mktemp("ids"))


@pytest.fixture(scope="module")
def first(world: World) -> tuple[dict, dict, dict]:
    return snapshot(world, WINDOW_END)


def test_passes_over_the_window_end_when_the_newest_day_is_told_no_better(world, first) -> None:
    model, _, metrics = first
    assert 1 <= metrics["passes"] <= 3
    assert metrics["auc"] > 0.55
    once = new_world(world.root.parent / "once", passes=1)
    assert metrics["auc"] >= snapshot(once, WINDOW_END)[2]["auc"], "the best pass is kept"
    counted = model["table.user.count_R"].sum()
    events = [world.lake.read(world.spec.events_table(), ds) for ds in DAYS[:3]]
    pairs = sum(
        (
            (e["click"].to_numpy(zero_copy_only=False) == 1)
            | (e["checkout"].to_numpy(zero_copy_only=False) == 1)
        ).sum()
        for e in events
    )
    assert counted == pairs, "a second pass counts nobody again"


def test_a_pass_that_is_no_better_is_undone(tmp_path, monkeypatch) -> None:
    world = new_world(tmp_path)
    scores = iter([0.8, 0.7])
    score = Trainer.score

    def told(self, batches):
        found = score(self, batches)
        return {"positive": found["positive"] | {"auc": next(scores)}}

    monkeypatch.setattr(Trainer, "score", told)
    model, optimizer, metrics = snapshot(world, WINDOW_END)
    assert (metrics["passes"], metrics["auc"]) == (1, 0.8)
    monkeypatch.setattr(Trainer, "score", score)
    once = new_world(tmp_path / "once", passes=1)
    for found, wanted in zip((model, optimizer), snapshot(once, WINDOW_END), strict=False):
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_next_day_goes_on_and_rows_of_nobody_stay(world, first) -> None:
    before, _, _ = first
    after, _, metrics = snapshot(world, NEXT)
    assert metrics["days"] == 1
    assert "passes" not in metrics
    read = set(row_of(keys(*(f"user{i}" for i in range(40))), TABLES.user_rows).tolist())
    others = [r for r in range(1, TABLES.user_rows) if r not in read]
    name = "table.user.weight"
    assert torch.equal(after[name][others], before[name][others])
    assert not torch.equal(after[name], before[name])
    outcome = world.infer(NEXT, "ids")
    assert outcome.metrics["cold_rows_user"] == 0
    rows = world.lake.read(raw_table("ids", "user"), NEXT, columns=["entity_id", "embedding"])
    vectors = dict(zip(rows["entity_id"].to_pylist(), unpack(rows["embedding"], 8), strict=True))
    assert len(vectors) > 30
    for user in ("user3", "user17"):
        row = after[name][row_of(keys(user), TABLES.user_rows)[0]]
        np.testing.assert_allclose(vectors[user], row / row.norm(), atol=1e-6)


def test_what_was_learned_of_a_person_is_erased_from_every_snapshot(tmp_path) -> None:
    world = new_world(tmp_path, passes=1)
    days = (WINDOW_END, NEXT)
    before = {ds: snapshot(world, ds)[:2] for ds in days}
    ctx, store = world.context(NEXT, "ids"), SnapshotStore(world.root, "ids")
    was = tuple(forget_rows.recorded(ctx))
    assert [a.ds for a in was] == list(days)
    store.draft("2025-01-01-killed").mkdir()
    (store.draft("2025-01-01-killed") / CHECKPOINT).write_bytes(b"rows of people")
    gone = row_of(keys("user3"), TABLES.user_rows)
    assert before[NEXT][0]["table.user.weight"][gone].any()

    found = forget_rows.forget_rows(ctx, "user", pa.array(["user3", "nobody"]))

    assert set(found) == {"snapshot:ids"}
    assert all(count > 0 for count in found["snapshot:ids"].values())
    assert set(found["snapshot:ids"]) == set(days)
    assert not list(store.root.glob(".*"))
    both = torch.unique(row_of(keys("user3", "nobody"), TABLES.user_rows))
    others = torch.tensor([r for r in range(TABLES.user_rows) if r not in both.tolist()])
    for artifact in was:
        now = forget_rows.as_it_is(ctx, artifact)
        assert now.digest != artifact.digest
        manifest = store.of(now)
        model, told = store.read(manifest, MODEL), before[artifact.ds]
        for name in ("table.user.weight", "table.user.count_R", "table.user.sum_R"):
            assert not model[name][both].any()
            assert torch.equal(model[name][others], told[0][name][others])
        assert torch.equal(model["table.pin.weight"], told[0]["table.pin.weight"])
    assert forget_rows.forget_rows(ctx, "user", pa.array(["user3", "nobody"])) == {}
    # Whoever dies between the removal of a snapshot and the renaming of its draft is found again.
    newest = now.uri.rpartition("/")[2]
    store.folder(newest).rename(store.draft(newest))
    assert forget_rows.forget_rows(ctx, "user", pa.array(["user3"])) == {}
    assert store.of(now).snapshot_id == newest


def test_an_interrupted_pass_ends_with_the_same_bits(world, first, tmp_path) -> None:
    model, _, _ = first
    again = new_world(tmp_path)
    again.recipe = dataclasses.replace(
        again.recipe, training=dataclasses.replace(again.recipe.training, checkpoint_steps=1)
    )
    ctx = again.context(WINDOW_END, "ids")
    store = SnapshotStore(again.root, "ids")
    plan = plan_training(ctx, store)
    [second] = [i for i, p in enumerate(plan.phases) if p.number == 1 and p.ds == DAYS[0]]
    run = TrainingRun(ctx, plan, store)

    def killed(state) -> None:
        type(run)._on_step(run, state)
        if run.progress.phase == second and state.steps == 2:
            raise KeyboardInterrupt

    run._on_step = killed
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert (store.draft(plan.snapshot_id) / CHECKPOINT).exists()
    found, _, _ = snapshot(again, WINDOW_END)
    assert all(torch.equal(found[name], model[name]) for name in model)
