"""Manifests and homes on disk: whole, absent, or refused with the file's name."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.errors import InputError, ManifestCorrupt
from feature_store.contracts.manifests import Artifact, StepManifest
from jobs.engine.manifests import ManifestStore
from jobs.settings import Home

_TIMES = {"started_at": "2025-03-02T01:00:00+00:00", "finished_at": "2025-03-02T01:00:01+00:00"}


def _manifest(step: str = "train", ds: str = "2025-03-01", upstream: str | None = "ctr"):
    return StepManifest(step=step, ds=ds, upstream=upstream, duration_s=1.0, **_TIMES)


@pytest.fixture
def store(tmp_path: Path) -> ManifestStore:
    return ManifestStore(tmp_path / "manifests")


def test_read_your_write(store: ManifestStore) -> None:
    manifest = _manifest().model_copy(
        update={
            "outputs": (Artifact(name="snapshot:ctr", ds="2025-03-01", digest="d", rows=3),),
            "metrics": {"auc": 0.7, "rows": 3, "id": "x", "none": None},
        }
    )
    path = store.put(manifest)
    assert path == store.root / "2025-03-01" / "train.ctr.json"
    assert store.get("train", "2025-03-01", "ctr") == manifest


def test_absent_is_none_and_not_an_error(store: ManifestStore) -> None:
    assert store.get("train", "2025-03-01", "ctr") is None
    assert store.days() == ()
    assert list(store.of_day("2025-03-01")) == []
    store.remove("train", "2025-03-01", "ctr")


def test_upstreams_are_kept_apart(store: ManifestStore) -> None:
    store.put(_manifest(upstream="ctr"))
    assert store.get("train", "2025-03-01", "cvr") is None
    assert store.get("train", "2025-03-01", None) is None


def test_days_and_their_manifests(store: ManifestStore) -> None:
    for ds in ("2025-03-02", "2025-03-01"):
        store.put(_manifest(ds=ds, upstream="cvr"))
        store.put(_manifest(ds=ds, upstream="ctr"))
        store.put(_manifest(step="ingest", ds=ds, upstream=None))
    (store.root / "2025-03-03").mkdir()
    assert store.days() == ("2025-03-01", "2025-03-02")
    found = [(m.step, m.upstream) for m in store.of_day("2025-03-02")]
    assert found == [("ingest", None), ("train", "ctr"), ("train", "cvr")]


def test_a_removed_manifest_is_absent(store: ManifestStore) -> None:
    store.put(_manifest())
    store.remove("train", "2025-03-01", "ctr")
    assert store.get("train", "2025-03-01", "ctr") is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"step": "train"}', '{"step": "train", "surprise": 1}', "\x00"],
)
def test_a_manifest_that_cannot_be_read_is_refused(store: ManifestStore, content: str) -> None:
    path = store.put(_manifest())
    path.write_text(content)
    with pytest.raises(ManifestCorrupt) as caught:
        store.get("train", "2025-03-01", "ctr")
    assert caught.value.where == str(path)
    assert "derm train --ds 2025-03-01" in caught.value.hint
    assert caught.value.exit_code == 2


def test_bytes_that_are_no_text_are_refused(store: ManifestStore) -> None:
    store.put(_manifest()).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestCorrupt):
        store.get("train", "2025-03-01", "ctr")


@pytest.mark.parametrize(
    "change", [{"step": "infer"}, {"ds": "2025-03-02"}, {"upstream": "cvr"}, {"upstream": None}]
)
def test_a_manifest_in_the_wrong_place_is_refused(
    store: ManifestStore, change: dict[str, str | None]
) -> None:
    path = store.put(_manifest())
    path.write_text(_manifest().model_copy(update=change).model_dump_json())
    with pytest.raises(ManifestCorrupt, match="another step or day"):
        store.get("train", "2025-03-01", "ctr")


def test_every_truncation_is_refused(store: ManifestStore) -> None:
    path = store.put(_manifest())
    whole = path.read_text().rstrip()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(ManifestCorrupt):
            store.get("train", "2025-03-01", "ctr")


def test_a_crash_while_writing_keeps_the_old_manifest(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _manifest()
    store.put(old)

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.put(old.model_copy(update={"duration_s": 2.0}))
    assert store.get("train", "2025-03-01", "ctr") == old
    assert list(store.of_day("2025-03-01")) == [old]


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", "text")
    assert (tmp_path / "a" / "b.txt").read_text() == "text"
    assert stat.S_IMODE((tmp_path / "a" / "b.txt").stat().st_mode) & stat.S_IRUSR
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


@given(text=st.text())
def test_any_metric_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    store = ManifestStore(tmp_path_factory.mktemp("m"))
    manifest = _manifest().model_copy(update={"metrics": {"note": text}})
    store.put(manifest)
    assert store.get("train", "2025-03-01", "ctr").metrics["note"] == text


def _home(**changes: object) -> Home:
    fields = {"dataset": "simulated", "recipe": "toy", "first_ds": "2025-03-01"}
    return Home(**{**fields, "start_ds": "2025-03-02", **changes})


def test_a_home_is_read_back(tmp_path: Path) -> None:
    _home(seed=7).save(tmp_path / "new")
    assert Home.load(tmp_path / "new") == _home(seed=7)


def test_saving_the_same_home_again_is_fine_and_another_is_not(tmp_path: Path) -> None:
    _home().save(tmp_path)
    _home().save(tmp_path)
    with pytest.raises(InputError, match="already holds another pipeline") as caught:
        _home(seed=1).save(tmp_path)
    assert '"seed":0' in caught.value.expected
    assert '"seed":1' in caught.value.found
    assert Home.load(tmp_path) == _home()


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a derm home") as caught:
        Home.load(tmp_path)
    assert "derm init" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", json.dumps({"dataset": "x"}),
     _home().model_dump_json().replace("2025-03-01", "2025-3-1"),
     _home().model_dump_json().replace("2025-03-01", "2025-02-30"),
     _home().model_dump_json().replace('"seed":0', '"seed":"0"'),
     _home().model_dump_json().replace('"seed":0', '"seed":0,"colour":"red"')],
)  # fmt: skip
def test_a_home_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "home.json").write_text(content)
    with pytest.raises(ManifestCorrupt) as caught:
        Home.load(tmp_path)
    assert caught.value.where == str(tmp_path / "home.json")
