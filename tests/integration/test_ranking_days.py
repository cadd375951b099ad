"""Rankers after a repair: what is due, and that it ends with the bits of a home never spoilt."""

import argparse
import datetime as dt
import io
import json
import re
import shutil

import pytest
from rich.console import Console

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, InputError
from jobs.commands import rank as command
from jobs.commands.status import _as_json, read_status
from jobs.engine import attempts, ranking
from jobs.engine.manifests import ManifestStore
from jobs.rendering.exposition import ONLY_WHEN_RANKED, exposition, newest_manifests
from jobs.rendering.state import read_state
from jobs.rendering.terminal import print_status
from jobs.settings import PROJECT
from jobs.upkeep import integrity, scanner
from jobs.upkeep.retain_folders import expired_folders
from tests.model_fixtures.ranked import NAME, RankedWorld
from tests.model_fixtures.world import FIRST

pytestmark = pytest.mark.integration

DAYS = tuple(shift_day(FIRST, i) for i in range(4))


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="module")
def world(tmp_path_factory, patched):
    """Four days, each ranked as `derm rank` does."""
    made = RankedWorld(tmp_path_factory.mktemp("days"))
    patched.setattr("jobs.engine.runner.dataset_spec", lambda *_: made.spec)
    patched.setattr("jobs.engine.runner.recipe_of", lambda _: made.recipe)
    made.home = made.home.model_copy(update={"upstreams": made.spec.declared_upstreams})
    made.home.save(made.root)
    for ds in DAYS:
        made.add_day(ds, rows=300)
        made.add_pools(ds)
        command.main(asked(ds), made.settings)
    return made


def asked(ds, **more):
    chosen = {"ranker": None, "earlier": False, "rollback": False, "json": False} | more
    return argparse.Namespace(ds=ds, **chosen)


def digests(world):
    manifests = ManifestStore(world.root / "manifests")
    return {
        (step.name, ds): manifests.get(step.name, ds, NAME).outputs[0].digest
        for ds in DAYS
        for step in world.context(ds, NAME).pipeline.ranking
    }


def test_a_day_that_holds_is_not_done_again(world, capsys):
    assert ranking.due(world.context(DAYS[-1]), NAME) == DAYS[-1:]
    assert command.main(asked(DAYS[-1]), world.settings) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    assert all(line.endswith("up to date") for line in said)


def test_two_repaired_days_repair_the_rankers_after_them_to_the_bit(world):
    clean = digests(world)
    wrong = DAYS[1], DAYS[2]
    for ds in wrong:
        world.add_pools(ds, value=3.0)
    # A day joins with the pools of the day before it.
    assert ranking.due(world.context(DAYS[-1]), NAME) == DAYS[2:]
    ranking.repair(world.settings, DAYS[-1], lambda _: None)
    spoilt = {key for key, digest in digests(world).items() if clean[key] != digest}
    assert {ds for _, ds in spoilt} == set(DAYS[2:])
    for ds in wrong:
        world.add_pools(ds)
    ranking.repair(world.settings, DAYS[-1], lambda _: None)
    assert digests(world) == clean


def test_a_ranker_that_is_refused_stops_no_repair(world, monkeypatch, caplog):
    def refuse(*_args, **_more):
        raise GuardFailed("it fell")

    monkeypatch.setattr(ranking, "run_step", refuse)
    ranking.repair(world.settings, DAYS[-1], lambda _: None)
    assert "a ranker is not" in caplog.text
    with pytest.raises(GuardFailed):
        command.main(asked(DAYS[-1]), world.settings)


def test_who_is_asked_for_has_to_be_declared(world):
    with pytest.raises(InputError, match="no such ranker"):
        command.main(asked(DAYS[-1], ranker="nobody"), world.settings)


def test_retention_keeps_what_a_repair_continues_from(world):
    config = world.recipe.retention
    kept = expired_folders(world.root, (), config, frozenset(), rankers=[NAME])
    assert kept == {}
    short = type(config)(daily_pools=2, weekly_pools=0)
    gone = expired_folders(world.root, (), short, frozenset(), rankers=[NAME])
    assert set(gone) == {
        f"rankers/{kind}/{NAME}" for kind in ("weights", "scores", "calibrations", "exports")
    }
    for folders in gone.values():
        assert {f.name[:10] for f in folders} <= set(DAYS[:2])


def test_status_says_how_rankers_stand_and_what_brings_them_up(world):
    ranker = _status(world)
    assert (ranker.days, ranker.command) == ((), ""), "nothing was released"
    for ds in DAYS:
        world.record("release", ds, None, ())
    ranker = _status(world)
    assert [d.summary.ds for d in ranker.days] == list(DAYS)
    assert (ranker.due, ranker.command) == ((), "")
    assert ranker.export.startswith(DAYS[-1])
    said = _text(world)
    assert "● ● ● ● ●" in said
    assert "current" in said
    assert "behind" not in said
    world.add_pools(DAYS[1], value=3.0)
    ranker = _status(world)
    assert [d.summary.ds for d in ranker.due] == list(DAYS[2:])
    assert ranker.due[0].open_steps[0].state == "stale"
    assert f"{NAME} is behind by 2 days: derm rank --ds {DAYS[-1]}" in _text(world)
    world.add_pools(DAYS[1])
    assert _status(world).command == ""


def test_status_says_what_was_refused_and_how_to_begin(world, tmp_path):
    later = shift_day(DAYS[-1], 1)
    world.add_day(later, rows=300)
    world.record("release", later, None, ())
    refusal = GuardFailed("yesterday's ranker is refused on the new day")
    with (
        pytest.raises(GuardFailed),
        attempts.attempt(world.root, "evaluate", later, NAME, limit_s=60),
    ):
        raise refusal
    said = _text(world)
    assert "evaluate clicks refused: yesterday's ranker is refused" in said
    assert f"{NAME} is behind by 1 days: derm rank --ds {later}" in said
    days = json.loads(json.dumps(_as_json(_read(world))))["rankers"][0]["days"]
    assert days[-1]["attempts"][0]["state"] == "refused"
    assert days[1]["metrics"]["evaluate"]["worth"] is not None
    for name in ("attempts", "manifests"):
        shutil.rmtree(world.root / name / later)


def test_a_rolled_back_release_takes_nothing_back_from_rankers(world):
    """They join by day with what the lake holds, whichever day readers see."""
    before, pointer = digests(world), world.settings.paths.pointer
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(f"{DAYS[1]}-1234abcd\n")
    try:
        assert ranking.due(world.context(DAYS[-1]), NAME) == DAYS[-1:]
        assert command.main(asked(DAYS[-1]), world.settings) == 0
        assert digests(world) == before
        exports = world.root / "rankers" / "exports" / NAME
        assert (exports / "current").read_text().startswith(DAYS[-1])
    finally:
        pointer.unlink()


def test_nothing_of_a_ranker_names_anybody(world):
    """So that a forget has nothing to remove from it."""
    users = world.lake.read(world.spec.events_table(), DAYS[-1])["user_id"].unique().to_pylist()
    files = [p for p in (world.root / "rankers").rglob("*") if p.is_file()]
    assert len(users) > 10
    assert len(files) > 20
    assert list(scanner.scan(files, scanner.Wanted(users))) == []


def test_a_ranker_that_never_learned_is_no_gap(tmp_path, world):
    fresh = RankedWorld(tmp_path)
    fresh.home = world.home
    fresh.home.save(tmp_path)
    fresh.add_day(DAYS[0])
    fresh.record("release", DAYS[0], None, ())
    assert f"Ranker {NAME} has learned no day; to begin: derm rank --ds {DAYS[0]}" in _text(fresh)


def test_numbers_of_rankers_are_exposed(world):
    text = exposition(list(newest_manifests(world.root)), read_state(world.root))
    shown = set(re.findall(r"^(derm_[a-z0-9_]+)", text, re.MULTILINE))
    infra = PROJECT / "infra"
    told = (infra / "prometheus/alerts.yml").read_text()
    told += (infra / "grafana/dashboards/derm.json").read_text()
    wanted = {n for n in re.findall(r"\bderm_[a-z0-9_]+", told) if n.startswith(ONLY_WHEN_RANKED)}
    assert len(wanted) >= 8
    assert wanted <= shown
    # 2025-03-05 00:00 UTC.
    assert f'derm_ranker_day_end_timestamp{{upstream="{NAME}"}} 1.7411328e+09' in text


def test_everything_of_a_ranker_is_compared_with_what_was_written(world):
    def found():
        of_rankers = f"{world.root}/rankers"
        damages = integrity.Look(world.context(DAYS[-1])).everything()
        return {d.where: d.repair for d in damages if d.where.startswith(of_rankers)}

    assert found() == {}
    ranked = world.root / "rankers"
    day = DAYS[-1]
    weights, export = (
        world.root / world.manifests.get(step, day, NAME).outputs[0].uri / file
        for step, file in (("train_ranker", "model.safetensors"), ("export_ranker", "ranker.json"))
    )
    spoilt = {
        weights: "train_ranker",
        export: "export_ranker",
        export.with_name("calibration.safetensors"): "export_ranker",
        ranked / "scores" / NAME / day / "scores.safetensors": "evaluate",
        ranked / "calibrations" / NAME / day / "calibration.safetensors": "calibrate",
    }
    kept = {path: path.read_bytes() for path in spoilt}
    for path, was in kept.items():
        path.write_bytes(bytes([was[0] ^ 1]) + was[1:])
        damaged = found()
        (repair,) = damaged.values()
        assert repair.startswith(f"derm {spoilt[path]} --ds {day} ")
        assert NAME in repair
        path.write_bytes(was)
    pointer = ranked / "exports" / NAME / "current"
    was = pointer.read_text()
    pointer.write_text("2025-01-01-gone\n")
    assert set(found()) == {str(pointer)}
    pointer.write_text(was)
    assert found() == {}


def _read(world):
    return read_status(world.settings, days=7, now=dt.datetime(2025, 3, 9, tzinfo=dt.UTC))


def _status(world):
    (ranker,) = _read(world).rankers
    return ranker


def _text(world):
    stream = io.StringIO()
    print_status(_read(world), Console(file=stream, width=160))
    return stream.getvalue()
