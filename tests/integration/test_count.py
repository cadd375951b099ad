"""`derm count`, here and on a real Spark: the same bits wherever and however often it runs."""

import dataclasses
from pathlib import Path

import pytest

from feature_store.config import LayoutConfig
from feature_store.contracts.base import ENTITIES
from feature_store.contracts.errors import ContractViolation
from feature_store.lake import staging
from feature_store.lake.lake import stage_file
from jobs.engine.context import RunContext
from jobs.steps import count
from jobs.upkeep.rebucket import rebucket
from tests.model_fixtures.world import FIRST, World, next_day

pytestmark = [pytest.mark.integration, pytest.mark.spark]

DAYS = (FIRST, next_day(FIRST), next_day(next_day(FIRST)))


def digests(world: World, ds: str) -> list[str]:
    return [world.lake.artifact(world.spec.counts_table(e).name, ds).digest for e in ENTITIES]


def counted(ctx: RunContext) -> list[str]:
    return [a.digest for a in count.run(ctx).outputs]


@pytest.fixture(autouse=True, params=["local", "spark"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both engines, in turn."""
    monkeypatch.setenv("DERM_ENGINE", request.param)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three days, counted in this process."""
    world = World(tmp_path)
    for ds in DAYS:
        world.add_day(ds)
    return world


def test_neither_the_engine_nor_how_events_are_divided_leaves_a_trace(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, ds = world.spec.events_table(), DAYS[1]
    before = digests(world, ds)
    assert counted(world.context(ds)) == before
    events = world.lake.read(table, ds)
    parts = [events.slice(start, 70) for start in range(0, len(events), 70)]
    # Several files of several row groups.
    monkeypatch.setattr(staging, "_group_rows", lambda _: 30)
    world.lake.commit(table, ds, [stage_file(world.lake.root, table, ds, p) for p in parts])
    assert len(world.lake.files(table.name, ds)) == 6
    assert counted(world.context(ds)) == before
    assert counted(world.context(ds)) == before
    assert list((world.root / "scratch").iterdir()) == []
    # Nothing changed, so nothing that follows has to be made again.
    assert world.manifests.get("count", DAYS[2], None)


def test_rebucketed_counts_hold_the_same_rows_and_slide_on(world: World) -> None:
    tables = [world.spec.counts_table(e) for e in ENTITIES]
    before = [world.lake.read(t, DAYS[2]).sort_by("entity_id") for t in tables]
    layout = LayoutConfig(user_buckets=4, pin_buckets=3)
    world.recipe = dataclasses.replace(world.recipe, layout=layout)
    for entity, table in zip(ENTITIES, tables, strict=True):
        rebucket(world.context(DAYS[0]), table, layout.buckets(entity))
        for ds in DAYS:
            recorded = world.manifests.get("count", ds, None)
            assert recorded
            assert recorded.output(f"lake:{table.name}") == world.lake.artifact(table.name, ds)
    count.run(world.context(DAYS[2]))
    assert [world.lake.read(t, DAYS[2]).sort_by("entity_id") for t in tables] == before


def test_other_buckets_than_the_recipes_are_refused(world: World) -> None:
    world.recipe = type(world.recipe)(name="toy")
    with pytest.raises(ContractViolation, match="laid out differently") as caught:
        count.run(world.context(DAYS[1]))
    assert caught.value.hint == "derm rebucket"
