"""Rankers after a repair: what is due, and that it ends with the bits of a home never spoilt."""

import argparse

import pytest

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, InputError
from jobs.commands import rank as command
from jobs.engine import ranking
from jobs.engine.manifests import ManifestStore
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
    return argparse.Namespace(**{"ds": ds, "ranker": None, "earlier": False, "json": False} | more)


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
