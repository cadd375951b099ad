"""A ranker's days on a tiny world: joined, learned, measured, refused, calibrated, exported."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from feature_store.contracts.base import ENTITIES, shift_day
from feature_store.contracts.errors import (
    ContractViolation,
    GuardFailed,
    ManifestCorrupt,
    MissingInput,
)
from feature_store.reading.examples import Order
from jobs.engine.runner import record, resolve_inputs
from jobs.pipelines import ranking
from jobs.ranking import reading
from models.rankers import export as exports
from tests.model_fixtures.ranked import NAME, RUN, RankedWorld
from tests.model_fixtures.world import FIRST

pytestmark = pytest.mark.integration

DAYS = tuple(shift_day(FIRST, i) for i in range(4))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = RankedWorld(tmp_path_factory.mktemp("ranked"))
    for ds in DAYS:
        made.add_day(ds, rows=600)
        made.add_pools(ds)
        made.rank(ds)
    return made


def test_a_day_is_joined_with_the_pools_of_the_day_before(world):
    assert world.metrics("assemble", DAYS[0])["pools"] == 0, "nothing was published before it"
    assert world.metrics("assemble", DAYS[1])["joined_day"] == DAYS[0]
    read = world.manifests.get("assemble", DAYS[1], NAME).inputs
    assert {(a.name, a.ds) for a in read if a.name.endswith("/pool")} == {
        (f"lake:embeddings/{u}/{e}/pool", DAYS[0]) for u in ("ctr", "cvr") for e in ENTITIES
    }


def test_it_says_what_embeddings_are_worth_before_it_learns_the_day(world):
    assert world.metrics("evaluate", DAYS[0]) == {}
    for ds in DAYS[1:]:
        found = world.metrics("evaluate", ds)
        assert found["worth"] == pytest.approx(found["auc_with"] - found["auc_without"])
        assert found["worth_low"] <= found["worth"] <= found["worth_high"]
        assert found["auc_with"] == pytest.approx(found["auc"], abs=5e-3)
        other = found["auc_with_good_click"] - found["auc_without_good_click"]
        assert found["worth_good_click"] == pytest.approx(other)
        assert found["auc_with_good_click"] == pytest.approx(found["auc_good_click"], abs=1e-2)
    # Of 300 rows: how far above chance is luck.
    assert world.metrics("evaluate", DAYS[-1])["auc"] > 0.5


def test_a_ranker_continues_yesterdays(world):
    store = reading.store(world.context(DAYS[-1], NAME))
    last = store.of(world.manifests.get("train_ranker", DAYS[-1], NAME).outputs[0])
    assert last.seen_days == DAYS
    before = store.of(world.manifests.get("train_ranker", DAYS[-2], NAME).outputs[0])
    assert (last.parent_id, last.space_id) == (before.snapshot_id, before.space_id)


def test_the_same_again_is_the_same_to_the_bit(world):
    before = {s.name: world.manifests.get(s.name, DAYS[-1], NAME) for s in ranking.STEPS}
    for step in ranking.STEPS:
        ctx = dataclasses.replace(world.context(DAYS[-1], NAME), force=True)
        record(ctx, step, resolve_inputs(ctx, step), lambda s=step, c=ctx: RUN[s.name](c))
    for name, manifest in before.items():
        again = world.manifests.get(name, DAYS[-1], NAME)
        assert [a.digest for a in again.outputs] == [a.digest for a in manifest.outputs], name


def test_an_export_predicts_what_the_ranker_says_calibrated(world):
    root = world.root / "rankers" / "exports" / NAME
    folder = root / (root / "current").read_text().strip()
    ranker, ctx = exports.load(folder), world.context(DAYS[-1], NAME)
    batch = next(reading.examples(ctx, DAYS[-1]).batches(Order(batch_rows=32)))
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    told = ranker.predict(tensors, reading.spaces(ctx))
    assert told.shape == (32, 2)
    assert ((told > 0) & (told < 1)).all()
    scale, shift = ranker.calibration_TS2[0, tensors["surface"].long()].T
    logits = ranker.objective.eval().predict(tensors)[:, 0]
    torch.testing.assert_close(told[:, 0], torch.sigmoid(scale * logits + shift))
    with pytest.raises(ContractViolation, match="other spaces"):
        ranker.predict(tensors, {"ctr": "2024-01-01", "cvr": "2024-01-01"})
    narrow = tensors | {"user_ctr_vector": tensors["user_ctr_vector"][:, 1:]}
    with pytest.raises(ContractViolation, match="another width"):
        ranker.predict(narrow, reading.spaces(ctx))
    (folder / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ManifestCorrupt, match="damaged"):
        exports.load(folder)
    world.step("export_ranker", DAYS[-1])


def test_a_surface_that_was_never_seen_is_predicted_as_all_together(world):
    root = world.root / "rankers" / "exports" / NAME
    ranker, ctx = (
        exports.load(root / (root / "current").read_text().strip()),
        world.context(DAYS[-1], NAME),
    )
    batch = next(reading.examples(ctx, DAYS[-1]).batches(Order(batch_rows=32)))
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    tensors["surface"] = torch.zeros_like(tensors["surface"])
    told = ranker.predict(tensors, reading.spaces(ctx))
    assert torch.isfinite(told).all()
    scale, shift = ranker.calibration_TS2[0, 0]
    logits = ranker.objective.eval().predict(tensors)[:, 0]
    torch.testing.assert_close(told[:, 0], torch.sigmoid(scale * logits + shift))
    # All surfaces together lie between the surfaces, not at nothing.
    of_each = ranker.calibration_TS2[0, 1:, 1]
    assert of_each.min() - 0.05 <= shift <= of_each.max() + 0.05


def test_a_day_without_the_pools_it_needs_is_refused(tmp_path):
    world = RankedWorld(tmp_path)
    world.add_day(DAYS[0])
    world.rank(DAYS[0])
    world.add_day(DAYS[1])
    with pytest.raises(MissingInput, match="pool of 2025-03-01 is not there"):
        world.step("assemble", DAYS[1])


@pytest.mark.parametrize(
    ("pools", "error", "said"),
    [
        ({"dim": 8}, ContractViolation, "another width"),
        ({"value": np.nan}, ContractViolation, "no numbers"),
    ],
)
def test_a_wrong_pool_is_refused(tmp_path, pools, error, said):
    world = RankedWorld(tmp_path)
    world.add_day(DAYS[0])
    world.add_pools(DAYS[0], **pools)
    world.rank(DAYS[0])
    world.add_day(DAYS[1])
    with pytest.raises(error, match=said):
        world.rank(DAYS[1])


def test_a_vector_of_zeros_and_labels_of_one_class_are_numbers(tmp_path):
    world = RankedWorld(tmp_path)
    for ds in DAYS[:2]:
        world.add_day(ds)
        world.add_pools(ds, value=0.0)
    events = world.spec.events_table()
    day = world.lake.read(events, DAYS[1])
    none = pa.array([0] * len(day), pa.int8())
    at = day.schema.get_field_index("click")
    ingest = world.manifests.get("ingest", DAYS[1], None)
    rest = [a for a in ingest.outputs if a.name != "lake:events"]
    changed = world.lake.overwrite(events, DAYS[1], day.set_column(at, "click", none))
    world.record("ingest", DAYS[1], None, (changed, *rest))
    for ds in DAYS[:2]:
        world.rank(ds)
    found = world.metrics("evaluate", DAYS[1])
    assert found["auc"] is None
    assert found["worth"] is None
    assert np.isfinite(world.metrics("calibrate", DAYS[1])["shift"])


def test_a_ranker_that_fell_is_refused_and_yesterdays_stays(tmp_path):
    world = RankedWorld(tmp_path)
    guards = dataclasses.replace(world.recipe.guards, max_auc_drop=0.01)
    world.recipe = dataclasses.replace(world.recipe, guards=guards)
    for ds in DAYS[:2]:
        world.add_day(ds, rows=3000)
        world.add_pools(ds)
        world.rank(ds)
    current = (world.root / "rankers" / "exports" / NAME / "current").read_text()
    world.add_day(DAYS[2], rows=3000)
    events = world.spec.events_table()
    day = world.lake.read(events, DAYS[2])
    at = day.schema.get_field_index("click")
    turned = pc.subtract(pa.scalar(1, pa.int8()), day["click"])
    rest = world.manifests.get("ingest", DAYS[2], None).outputs[1:]
    changed = world.lake.overwrite(events, DAYS[2], day.set_column(at, "click", turned))
    world.record("ingest", DAYS[2], None, (changed, *rest))
    world.step("assemble", DAYS[2])
    with pytest.raises(GuardFailed, match=r"evaluate\.auc"):
        world.step("evaluate", DAYS[2])
    with pytest.raises(MissingInput):
        world.step("train_ranker", DAYS[2])
    assert (world.root / "rankers" / "exports" / NAME / "current").read_text() == current


def test_the_same_day_join_reads_what_serving_could_not_have(tmp_path):
    world = RankedWorld(tmp_path, join="same day")
    world.add_day(DAYS[0])
    world.add_pools(DAYS[0])
    world.step("assemble", DAYS[0])
    assert world.metrics("assemble", DAYS[0])["joined_day"] == DAYS[0]


def test_without_a_comparison_one_ranker_is_trained(tmp_path):
    world = RankedWorld(tmp_path, compared=False)
    world.add_day(DAYS[0])
    world.add_pools(DAYS[0])
    world.rank(DAYS[0])
    assert "loss_without" not in world.metrics("train_ranker", DAYS[0])
    folder = world.root / world.manifests.get("train_ranker", DAYS[0], NAME).outputs[0].uri
    assert not (folder / "without_model.safetensors").exists()


def test_a_late_label_is_learned_only_where_its_impression_is_joined(world):
    ctx = world.context(DAYS[2], NAME)
    day = reading.examples(ctx, DAYS[2])
    learned = list(day.batches(Order(batch_rows=500)))
    late = np.concatenate([b["ts"][b["late"]] for b in learned])
    # Pools begin with the first day, so impressions are joined from the second on.
    assert (late >= np.datetime64(DAYS[1], "s").astype(float)).all()
