"""What features tell of labels and of special rows: measured, shown, and refused where it leaks."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.contracts.errors import GuardFailed
from jobs.cli import main
from jobs.steps import validate
from tests.data_fixtures import FIRST as FIRST_OF_WORLD
from tests.data_fixtures import Home
from tests.model_fixtures.world import FIRST, World, next_day

SECOND = next_day(FIRST)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two days with a few hundred late labels."""
    world = World(tmp_path_factory.mktemp("home"))
    for ds in (FIRST, SECOND):
        world.add_day(ds, rows=9_000, users=400, pins=60)
        table = world.spec.users_table()
        users = world.lake.read(table, ds)
        for name in ("seen_pins", "seen_actions"):
            place, kind = users.schema.get_field_index(name), users.schema.field(name)
            short = pc.list_slice(users[name], 0, 5).cast(kind.type)
            users = users.set_column(place, kind, short)
        world.lake.overwrite(table, ds, users)
    return world


def test_a_day_without_a_leak_passes(world: World) -> None:
    metrics = validate.run(world.context(SECOND)).metrics
    assert metrics["late_labels"] > 100
    assert metrics["late_auc"] < 0.6 < metrics["late_auc_bound"] < 0.75
    assert "late_auc" not in validate.run(world.context(FIRST)).metrics


def test_a_feature_that_tells_late_labels_is_refused_and_named(world: World) -> None:
    table = world.spec.events_table()
    events = world.lake.read(table, SECOND)
    moved = pc.if_else(
        pc.is_valid(events["arrived_at"]), pc.add(events["position"], 15), events["position"]
    )
    place = events.schema.get_field_index("position")
    spoilt = events.set_column(place, events.schema.field("position"), moved.cast(pa.float32()))
    world.lake.overwrite(table, SECOND, spoilt)
    try:
        with pytest.raises(GuardFailed, match="told from those that were not late, by position"):
            validate.run(world.context(SECOND))
    finally:
        world.lake.overwrite(table, SECOND, events)


def test_the_audit_of_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path, monkeypatch, capsys)
    assert home.derm("init", "--dataset", "simulated", "--recipe", "toy").code == 0
    for step in ("simulate", "ingest"):
        assert main([step, "--ds", FIRST_OF_WORLD]) == 0
    shown = home.derm("validate", "--ds", FIRST_OF_WORLD, "--audit")
    assert shown.code == 0
    assert "| feature | scope | click | good_click | late | duplicated | backfilled |" in shown.out
    found = json.loads(home.derm("validate", "--ds", FIRST_OF_WORLD, "--audit", "--json").out)
    assert found["ds"] == FIRST_OF_WORLD
    clicks = {r["name"]: r for r in found["upstreams"]["ctr"]}
    assert {"surface", "hour of ts", "content", "engaged_pins: length"} <= set(clicks)
    assert clicks["position"]["scope"] == "context"
    assert 0.5 < clicks["content"]["labels"]["click"] < 0.75
    assert clicks["position"]["special"] == {"late": None, "duplicated": None, "backfilled": None}
    # Nothing was changed, and nothing recorded.
    assert not (tmp_path / "manifests" / FIRST_OF_WORLD / "validate.json").exists()


def test_an_audit_needs_the_counts_of_yesterday(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path, monkeypatch, capsys)
    home.derm("init", "--dataset", "simulated", "--recipe", "toy")
    for ds in (FIRST_OF_WORLD, next_day(FIRST_OF_WORLD)):
        for step in ("simulate", "ingest"):
            assert main([step, "--ds", ds]) == 0
    refused = home.derm("validate", "--ds", next_day(FIRST_OF_WORLD), "--audit")
    assert refused.code == 2
    assert "table counts/user does not exist" in refused.err
