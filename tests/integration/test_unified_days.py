"""Days of the unified ranker on a tiny world: learned by surface, continued, exported."""

import shutil

import pytest
import torch

from feature_store.contracts.base import shift_day
from feature_store.contracts.sealed import sealed
from feature_store.reading.examples import Order
from jobs.ranking import reading
from models.rankers import export as exports
from models.rankers import programs
from models.rankers.unified import artifact
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
