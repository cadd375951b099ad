"""A new space beside the old one: trained, filled, published, continued; killed on the way.

The tests of this file are chapters of one story and run in order.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.contracts.base import ENTITIES
from feature_store.contracts.manifests import Release
from feature_store.contracts.sealed import unsealed
from feature_store.contracts.tables import pool_table
from jobs.engine import unfinished
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import stop_redis
from tests.brief_recipe import BRIEF
from tests.derm_process import begin, derm, start
from tests.pipelines import UPSTREAMS

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis]

OLD, DAY, NEXT = "2025-03-02", "2025-03-03", "2025-03-04"
BOOTSTRAP = ("bootstrap", "--ds", DAY, "--back", "1", "--yes")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two published days."""
    folder = tmp_path_factory.mktemp("bootstrap")
    begin(folder)
    derm(folder, "run", "--from", OLD, "--to", DAY)
    yield folder
    stop_redis(folder)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that has done nothing yet."""
    folder = tmp_path_factory.mktemp("fresh")
    derm(folder, "init", "--dataset", "simulated", "--recipe", BRIEF, "--days", "1")
    yield folder
    stop_redis(folder)


def digests(home: Path, ds: str) -> dict[str, str]:
    manifests = ManifestStore(home / "manifests")
    found = {}
    for u in UPSTREAMS:
        merged = manifests.get("merge", ds, u)
        assert merged
        found |= {
            f"{u}/{e}": merged.output(f"lake:{pool_table(u, e).name}").digest for e in ENTITIES
        }
    return found


def released(home: Path) -> Release:
    name = (home / "releases" / "current").read_text().strip()
    return Release.model_validate_json(unsealed(home / "releases" / f"{name}.json"))


def spaces(home: Path) -> set[str]:
    return {entry.space_id for entry in released(home).upstreams}


def test_a_plan_names_every_day_and_changes_nothing(home: Path) -> None:
    shown = derm(home, *BOOTSTRAP[:-1], "--dry-run")
    assert f"train on the days up to {DAY}, embed {OLD} to {DAY}" in shown
    assert not (home / "spaces.json").exists()
    refused = start(home, "bootstrap", "--ds", OLD, "--yes")
    assert f"no space can begin on {OLD}" in refused.communicate()[1]
    assert refused.returncode == 2


def test_killed_and_called_again_it_flips_from_one_space_to_the_other(home: Path) -> None:
    old = spaces(home)
    process = start(home, *BOOTSTRAP)
    while (progress := unfinished.load(home)) is None or progress.done < 6:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert spaces(home) == old
    other = start(home, "backfill", "--from", OLD, "--to", OLD, "--yes")
    assert f"derm bootstrap --ds {DAY} --back 1" in other.communicate()[1]
    derm(home, *BOOTSTRAP)
    assert not old & spaces(home)
    assert released(home).ds == DAY
    assert unfinished.load(home) is None
    assert "Next:" not in derm(home, "status")


def test_the_old_space_is_one_rollback_away(home: Path) -> None:
    new = spaces(home)
    derm(home, "rollback")
    assert not new & spaces(home)
    derm(home, "release", "--ds", DAY, "--force")
    assert spaces(home) == new


def test_the_next_day_goes_on_in_the_new_space(home: Path) -> None:
    new = spaces(home)
    derm(home, "run", "--from", NEXT, "--to", NEXT)
    assert spaces(home) == new
    assert released(home).ds == NEXT


def test_what_a_space_began_with_is_not_repaired_but_made_anew(home: Path) -> None:
    refused = start(home, "backfill", "--from", DAY, "--to", DAY, "--yes")
    said = refused.communicate()[1]
    assert refused.returncode == 2
    assert f"days from {NEXT}" in said
    assert "made anew by derm bootstrap" in said
    before = digests(home, NEXT)
    derm(home, "backfill", "--from", NEXT, "--to", NEXT, "--what", "features", "--yes")
    assert digests(home, NEXT) == before


def test_it_does_not_depend_on_what_was_before(home: Path, fresh: Path) -> None:
    refused = start(fresh, "bootstrap", "--yes")
    assert "there is no pool yet" in refused.communicate()[1]
    derm(fresh, *BOOTSTRAP)
    for ds in (OLD, DAY):
        assert digests(fresh, ds) == digests(home, ds)
    derm(fresh, "run", "--from", NEXT, "--to", NEXT)
    assert digests(fresh, NEXT) == digests(home, NEXT)
    assert spaces(fresh) == spaces(home)
    days = json.loads(derm(fresh, "status", "--json"))["days"]
    assert [day["command"] for day in days if day["command"]] == []
