"""`derm infer` over a window: past days embedded with a newer snapshot, and what then is stale."""

import json
import shutil
from pathlib import Path

import pytest

from feature_store.contracts.tables import raw_table
from feature_store.lake.lake import Lake
from jobs.engine.manifests import ManifestStore
from tests.brief_recipe import BRIEF
from tests.data_fixtures import Home

pytestmark = [pytest.mark.integration, pytest.mark.spark]

HISTORY, FIRST, SECOND = "2025-03-01", "2025-03-02", "2025-03-03"
RAW = raw_table("ctr", "user").name
WINDOW = ("infer", "--from", FIRST, "--to", SECOND, "--upstream", "ctr")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days, each embedded with the snapshot that was trained on it."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERM_THREADS", "1")
        home = Home(path, patch)
        home.must("init", "--dataset", "simulated", "--recipe", BRIEF, "--days", "1")
        steps = "simulate,ingest,validate,count"
        home.must("run", "--from", HISTORY, "--to", SECOND, "--steps", steps)
        steps, upstream = "train,infer", ("--upstream", "ctr")
        home.must("run", "--from", FIRST, "--to", SECOND, "--steps", steps, *upstream)
    return path


@pytest.fixture
def home(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Home:
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.setenv("DERM_THREADS", "1")
    return Home(tmp_path / "home", monkeypatch, capsys)


def digest(home: Home, ds: str) -> str:
    return Lake(home.path / "lake").artifact(RAW, ds).digest


def snapshot_of(home: Home, ds: str) -> str:
    manifest = ManifestStore(home.path / "manifests").get("infer", ds, "ctr")
    assert manifest
    return str(manifest.metrics["snapshot_id"])


def state(home: Home, ds: str, step: str) -> str:
    days = json.loads(home.derm("status", "--json").out)["days"]
    (found,) = (
        s["state"]
        for day in days
        if day["ds"] == ds
        for s in day["steps"]
        if (s["step"], s["upstream"]) == (step, "ctr")
    )
    return str(found)


def test_the_window_follows_from_the_newest_snapshot_and_is_current(home: Home) -> None:
    own = digest(home, FIRST), digest(home, SECOND)
    newest = snapshot_of(home, SECOND)
    assert snapshot_of(home, FIRST) != newest
    assert home.derm(*WINDOW, "--snapshot", "latest").code == 0
    assert (snapshot_of(home, FIRST), snapshot_of(home, SECOND)) == (newest, newest)
    assert digest(home, FIRST) != own[0]
    assert digest(home, SECOND) == own[1]
    for ds, before in ((FIRST, HISTORY), (SECOND, FIRST)):
        manifest = ManifestStore(home.path / "manifests").get("infer", ds, "ctr")
        assert manifest
        assert {a.ds for a in manifest.inputs if "counts" in a.name} == {before}
    assert state(home, FIRST, "infer") == "done"
    assert "up to date" in home.derm("infer", "--ds", FIRST, "--upstream", "ctr").out
    back = digest(home, FIRST)
    assert home.derm(*WINDOW, "--snapshot", newest).code == 0
    assert digest(home, FIRST) == back
    # By force, the day's own snapshot makes the same bits as before.
    assert home.derm("infer", "--ds", FIRST, "--upstream", "ctr", "--force").code == 0
    assert digest(home, FIRST) == own[0]


def test_what_was_made_from_the_old_embeddings_is_stale(home: Home) -> None:
    store = ManifestStore(home.path / "manifests")
    inferred = store.get("infer", FIRST, "ctr")
    assert inferred
    store.put(inferred.model_copy(update={"step": "dedup", "inputs": inferred.outputs}))
    assert home.derm(*WINDOW).code == 0
    assert state(home, FIRST, "dedup") == "stale"


def test_a_newer_snapshot_that_changes_makes_the_window_stale(home: Home) -> None:
    assert home.derm(*WINDOW).code == 0
    store = ManifestStore(home.path / "manifests")
    trained = store.get("train", SECOND, "ctr")
    assert trained
    (output,) = trained.outputs
    other = output.model_copy(update={"digest": "0" * 32})
    store.put(trained.model_copy(update={"outputs": (other,)}))
    assert state(home, FIRST, "infer") == "stale"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("infer",), "derm infer needs days"),
        (("infer", "--from", FIRST), "derm infer needs days"),
        (("infer", "--ds", FIRST, "--from", FIRST, "--to", FIRST), "derm infer needs days"),
        ((*WINDOW, "--snapshot", "nothing"), "no snapshot nothing of ctr"),
        (("infer", "--from", FIRST, "--to", "2025-03-04", "--upstream", "ctr"), "older than"),
        (("infer", "--from", SECOND, "--to", FIRST), "ends before it begins"),
    ],
)
def test_a_window_that_cannot_be_embedded_is_refused(
    home: Home, arguments: tuple[str, ...], expected: str
) -> None:
    before = digest(home, FIRST), digest(home, SECOND)
    result = home.derm(*arguments)
    assert result.code == 2
    assert expected in result.err
    assert (digest(home, FIRST), digest(home, SECOND)) == before


def test_a_snapshot_older_than_the_window_is_refused(home: Home) -> None:
    result = home.derm(*WINDOW, "--snapshot", snapshot_of(home, FIRST))
    assert result.code == 2
    assert f"a snapshot of {SECOND} or later" in result.err
