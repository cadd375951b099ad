"""Prometheus text from manifests."""

import datetime as dt
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from feature_store.contracts.base import Upstream
from feature_store.contracts.manifests import Metrics, StepManifest
from jobs.cli import main
from jobs.engine.manifests import ManifestStore
from jobs.rendering.exposition import exposition, newest_manifests, write_metrics
from jobs.rendering.state import HomeState
from tests.report_fixtures import make_home, publish


def manifest(
    step: str, ds: str, metrics: Metrics, upstream: Upstream | None = None
) -> StepManifest:
    return StepManifest(
        step=step,
        ds=ds,
        upstream=upstream,
        metrics=metrics,
        started_at=f"{ds}T01:00:00+00:00",
        finished_at=f"{ds}T01:00:05+00:00",
        duration_s=5.0,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path, days=0)
    store = ManifestStore(tmp_path / "manifests")
    for ds, auc in (("2025-03-01", 0.6), ("2025-03-02", 0.7)):
        store.put(manifest("train", ds, {"auc": auc, "note": "text"}, "ctr"))
        store.put(manifest("verify", ds, {"cosine_user": 0.9, "cosine_pin": 0.8}, "ctr"))
    store.put(manifest("release", "2025-03-01", {}))
    return tmp_path


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_the_newest_day_of_each_step_is_shown(home: Path) -> None:
    found = parsed(exposition(list(newest_manifests(home)), HomeState()))
    assert found["derm_train_auc", (("entity", ""), ("upstream", "ctr"))] == 0.7
    assert found["derm_verify_cosine", (("entity", "pin"), ("upstream", "ctr"))] == 0.8


def test_text_values_are_left_out(home: Path) -> None:
    assert "note" not in exposition(list(newest_manifests(home)), HomeState())


def test_the_published_day_is_the_one_readers_see(tmp_path: Path) -> None:
    """Not the newest that was released: readers may have been taken back."""
    make_home(tmp_path, days=3)
    write_metrics(tmp_path)
    assert published_day_ended(tmp_path) == dt.datetime(2025, 3, 4, tzinfo=dt.UTC)
    publish(tmp_path, "2025-03-02")
    write_metrics(tmp_path)
    assert published_day_ended(tmp_path) == dt.datetime(2025, 3, 3, tzinfo=dt.UTC)


def published_day_ended(home: Path) -> dt.datetime:
    found = parsed((home / "metrics" / "derm.prom").read_text())
    return dt.datetime.fromtimestamp(found["derm_release_day_end_timestamp", ()], dt.UTC)


def test_an_empty_home_has_no_numbers(tmp_path: Path) -> None:
    make_home(tmp_path, days=0)
    assert parsed(exposition(list(newest_manifests(tmp_path)), HomeState())) == {}


def test_the_command_replaces_its_file_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    target = tmp_path / "derm.prom"
    target.write_text("old")
    assert main(["metrics", "--output", str(target)]) == 0
    assert "derm_train_auc" in target.read_text()
    assert [p.name for p in tmp_path.iterdir() if "draft" in p.name] == []
