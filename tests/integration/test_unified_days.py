"""Days of the unified ranker on a tiny world: learned by surface, continued, exported."""

import dataclasses
import shutil

import pyarrow as pa
import pytest
import torch

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, MissingInput
from feature_store.contracts.sealed import sealed
from feature_store.reading.examples import Order
from jobs.engine import ranking
from jobs.ranking import reading
from jobs.steps import evaluate
from models.rankers import export as exports
from models.rankers import programs
from models.rankers.unified import artifact
from tests.model_fixtures import unified
from tests.model_fixtures.ranked import NAME, RankedWorld
from tests.model_fixtures.world import FIRST

pytestmark = pytest.mark.integration

DAYS = tuple(shift_day(FIRST, i) for i in range(5))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = RankedWorld(tmp_path_factory.mktemp("unified"), family="unified", compared=False)
    made.spec = made.spec.model_copy(
        update={"surface_features": {"home": ("position",), "search": ("query",)}}
    )
    for ds in DAYS:
        made.add_day(ds, rows=600)
        made.add_pools(ds)
        made.rank(ds)
    return made


def test_it_learns_day_after_day(world):
    aucs = [world.metrics("evaluate", ds)["auc"] for ds in DAYS[1:]]
    assert aucs[-1] > max(aucs[0], 0.55), aucs
    store = reading.store(world.context(DAYS[-1], NAME))
    last = store.of(world.manifests.get("train_ranker", DAYS[-1], NAME).outputs[0])
    assert last.seen_days == DAYS


def test_a_day_says_how_much_each_surface_pulls(world):
    found = world.metrics("train_ranker", DAYS[-1])
    assert found["gradient_home"] > 0
    assert found["gradient_search"] > 0
    assert found["gradient_other"] == 0


def test_an_export_holds_a_program_for_each_surface(world, tmp_path):
    root = world.root / "rankers" / "exports" / NAME
    folder = tmp_path / "export"
    shutil.copytree(root / (root / "current").read_text().strip(), folder)
    description = exports.load(folder).description
    config = description.config | {"programs": True}
    (folder / exports.DESCRIPTION).write_text(
        sealed(description.model_copy(update={"config": config}).model_dump_json())
    )
    assert programs.write(folder) == 2
    for number, surface in enumerate(("home", "search"), 1):
        at = folder / programs.FOLDER / programs.folder_of(number, surface)
        schema = artifact.load(at).schema
        assert (schema["surface"], schema["ds"]) == (surface, DAYS[-1])
        assert schema["tasks"] == list(description.tasks)


def test_an_export_knows_which_features_are_whose(world):
    root = world.root / "rankers" / "exports" / NAME
    ranker = exports.load(root / (root / "current").read_text().strip())
    assert ranker.description.own == (("position",), ("query",))
    ctx = world.context(DAYS[-1], NAME)
    batch = next(reading.examples(ctx, DAYS[-1]).batches(Order(batch_rows=32)))
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    told = ranker.predict(tensors, reading.spaces(ctx))
    assert ((told > 0) & (told < 1)).all()
    home = tensors["surface"] == 1
    strange = tensors | {"query": torch.where(home, 3, tensors["query"])}
    assert torch.equal(told, ranker.predict(strange, reading.spaces(ctx)))


def test_each_surface_is_measured_and_guarded(world):
    found = world.metrics("evaluate", DAYS[-1])
    for surface in ("home", "search"):
        assert 0 < found[f"auc_on_{surface}"] < 1
        assert found[f"auc_on_{surface}_bound"] < found[f"auc_on_{surface}_reference"]
        assert world.metrics("calibrate", DAYS[-1])[f"calibration_{surface}"] > 0


def test_a_surface_that_fell_is_refused():
    checks = evaluate.checks(
        {"auc": 0.7, "auc_bound": 0.5, "auc_on_search": 0.4, "auc_on_search_bound": 0.5},
        ("home", "search"),
    )
    assert [c.number for c in checks if c.breaks] == ["auc_on_search"]


def test_predictions_far_from_what_happened_keep_the_export_before(tmp_path):
    world = RankedWorld(tmp_path, compared=False)
    for ds in DAYS[:3]:
        world.add_day(ds, rows=300)
        world.add_pools(ds)
    for ds in DAYS[:2]:
        world.rank(ds)
    pointer = tmp_path / "rankers" / "exports" / NAME / "current"
    before = pointer.read_text()
    events = world.spec.events_table()
    day = world.lake.read(events, DAYS[2])
    at = day.schema.get_field_index("click")
    every = day.set_column(at, "click", pa.array([1] * len(day), pa.int8()))
    ingest = world.manifests.get("ingest", DAYS[2], None)
    rest = [a for a in ingest.outputs if a.name != "lake:events"]
    changed = world.lake.overwrite(events, DAYS[2], every)
    world.record("ingest", DAYS[2], None, (changed, *rest))
    guards = dataclasses.replace(world.recipe.guards, max_calibration_off=0.2)
    world.recipe = dataclasses.replace(world.recipe, guards=guards)
    with pytest.raises(GuardFailed, match="calibration_off"):
        world.rank(DAYS[2])
    assert pointer.read_text() == before


def test_a_new_ranker_may_be_held_to_the_one_before(world):
    ctx = world.context(shift_day(DAYS[-1], 1), NAME)
    assert reading.teacher(ctx) is None, "unless its recipe says so"
    held = dataclasses.replace(unified.ABLE, distillation=0.5)
    taught = dataclasses.replace(world.recipe.ranking, families={"unified": held})
    ctx = dataclasses.replace(ctx, recipe=dataclasses.replace(world.recipe, ranking=taught))
    assert reading.teacher(ctx).description.ds == DAYS[-1]
    assert reading.teacher(dataclasses.replace(ctx, ds=DAYS[-1])) is None, "nobody teaches itself"


def test_a_new_export_is_scored_beside_the_one_in_use(world):
    found = world.metrics("export_ranker", DAYS[-1])
    assert found["shadow_rows"] == 600
    assert 0 < found["shadow_gap"] < 0.5
    assert found["shadow_ratio"] == pytest.approx(1, abs=0.5)
    assert "shadow_gap" not in world.metrics("export_ranker", DAYS[0])


def test_one_command_brings_the_export_before_back(world):
    pointer = world.root / "rankers" / "exports" / NAME / "current"
    newest = pointer.read_text()
    ctx = world.context(DAYS[-1], NAME)
    named = ranking.revert(ctx, NAME)
    assert pointer.read_text().strip() == named
    assert named == world.metrics("export_ranker", DAYS[-2])["export"]
    assert exports.load(pointer.parent / named).description.ds == DAYS[-2]
    with pytest.raises(MissingInput, match="no export of a day before"):
        ranking.revert(world.context(DAYS[0], NAME), NAME)
    world.step("export_ranker", DAYS[-1])
    assert pointer.read_text() == newest
