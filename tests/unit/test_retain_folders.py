"""Which snapshots and indexes go: none that a reader, a repair or the next day needs."""

import json
import os
import time
from pathlib import Path

import pytest

from feature_store.config import RetentionConfig
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Artifact, StepManifest
from jobs.cli import main
from jobs.datasets.registry import dataset_spec
from jobs.engine.attempts import attempt
from jobs.engine.manifests import ManifestStore
from jobs.settings import Home
from jobs.upkeep.retain import expired_attempts, scoring_days
from jobs.upkeep.retain_folders import expired_folders
from tests.pipelines import UPSTREAMS

DAYS = days_between("2025-03-01", "2025-04-30")
CONFIG = RetentionConfig(daily_pools=3, weekly_pools=2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two months of snapshots and indexes."""
    store = ManifestStore(tmp_path / "manifests")
    for ds in DAYS:
        for upstream in UPSTREAMS:
            _record(tmp_path, store, "train", ds, f"snapshots/{upstream}/{ds}", upstream)
            _record(tmp_path, store, "index", ds, f"index/{upstream}/{ds}", upstream)
    return tmp_path


def _record(home: Path, store: ManifestStore, step: str, ds: str, uri: str, upstream) -> None:
    (home / uri).mkdir(parents=True)
    (home / uri / "content").write_text("x")
    output = Artifact(name=f"{step}:{upstream}", ds=ds, digest="d", uri=uri)
    store.put(
        StepManifest(
            step=step, ds=ds, upstream=upstream, inputs=(), outputs=(output,), recipe="r",
            code="c", started_at="", finished_at="", duration_s=0.0,
        )
    )  # fmt: skip


def left(home: Path, kind: str, protected: frozenset[str] = frozenset()) -> list[str]:
    gone = expired_folders(home, UPSTREAMS, CONFIG, protected).get(f"{kind}/ctr", ())
    return sorted({p.name for p in (home / kind / "ctr").iterdir()} - {p.name for p in gone})


def test_snapshots_stay_as_pools_do(home: Path) -> None:
    # The newest three days, and the Sundays of two weeks more.
    sundays = ["2025-04-20", "2025-04-27"]
    assert left(home, "snapshots") == [*sundays, "2025-04-28", "2025-04-29", "2025-04-30"]


def test_snapshots_stay_until_they_have_scored_their_day_again(home: Path) -> None:
    spec = dataset_spec("simulated", "")
    days = scoring_days(spec)
    gone = expired_folders(home, UPSTREAMS, CONFIG, frozenset(), scoring_days=days)
    names = {p.name for p in gone["snapshots/ctr"]}
    # What matures with the newest day was scored by the snapshot of the day before it.
    matures = shift_day(DAYS[-1], -spec.attribution_days)
    assert shift_day(matures, -1) not in names
    assert shift_day(matures, -2) in names
    assert scoring_days(spec.model_copy(update={"attribution_days": 0})) == 0


def test_indexes_stay_while_somebody_may_read_them(home: Path) -> None:
    assert left(home, "index") == ["2025-04-29", "2025-04-30"]
    assert left(home, "index", frozenset({"2025-03-05"})) == [
        "2025-03-05", "2025-04-29", "2025-04-30",
    ]  # fmt: skip


def test_what_a_repair_needs_stays(home: Path) -> None:
    assert "2025-03-17" in left(home, "snapshots", frozenset({"2025-03-17"}))


def test_a_folder_that_no_manifest_names_goes_when_it_is_old(home: Path) -> None:
    for name, age_h in (("young", 1), ("old", 49)):
        folder = home / "snapshots" / "ctr" / name
        folder.mkdir()
        then = time.time() - age_h * 3600
        os.utime(folder, (then, then))
    draft = home / "snapshots" / "ctr" / ".2025-04-30.draft"
    draft.mkdir()
    os.utime(draft, (0, 0))
    names = left(home, "snapshots")
    assert "young" in names
    assert "old" not in names
    assert draft.name in names


def test_what_a_killed_build_of_an_index_left_behind_goes_when_it_is_old(home: Path) -> None:
    for name, age_h in ((".young.draft", 1), (".old.draft", 49), (".replaced.old", 49)):
        folder = home / "index" / "ctr" / name
        folder.mkdir()
        then = time.time() - age_h * 3600
        os.utime(folder, (then, then))
    names = left(home, "index")
    assert ".young.draft" in names
    assert not {".old.draft", ".replaced.old"} & set(names)


def test_records_of_attempts_go_when_their_day_is_not_kept_day_by_day(home: Path) -> None:
    known = ManifestStore(home / "manifests").days()
    old, young, next_day = known[0], known[-CONFIG.daily_pools], shift_day(known[-1], 1)
    for ds in (old, young, next_day):
        with pytest.raises(GuardFailed), attempt(home, "verify", ds, "ctr", limit_s=60):
            raise GuardFailed("refused")
    # A process that is at work is left alone, whatever its day.
    with attempt(home, "infer", old, "ctr", limit_s=60):
        (gone,) = expired_attempts(home, CONFIG, frozenset())
    assert (gone.parent.name, gone.name) == (old, "verify.ctr.json")
    assert expired_attempts(home, CONFIG, frozenset({old})) == ()


def test_a_dry_run_says_what_the_command_removes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = Home(dataset="simulated", recipe="toy", first_ds=DAYS[0], start_ds=DAYS[0])
    declared.save(home)
    with pytest.raises(GuardFailed), attempt(home, "verify", DAYS[0], "ctr", limit_s=60):
        raise GuardFailed("refused")
    monkeypatch.setenv("DERM_HOME", str(home))
    said = []
    for arguments in (["retain", "--dry-run", "--json"], ["retain", "--json"]):
        assert main(arguments) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert {**said[0], "files_removed": {}} == {**said[1], "files_removed": {}}
    assert said[1]["attempts"] == 1
    assert list((home / "attempts").iterdir()) == []
    # Snapshots that score their day again once its labels are final are kept by both.
    matures = shift_day(DAYS[-1], -dataset_spec("simulated", "").attribution_days)
    assert (home / "snapshots" / "ctr" / shift_day(matures, -1)).exists()


def test_a_home_without_anything_has_nothing_to_remove(tmp_path: Path) -> None:
    assert expired_folders(tmp_path, UPSTREAMS, CONFIG, frozenset()) == {}
