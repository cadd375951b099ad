"""`derm train` on two processes, as `torchrun` starts them: as on one, or a clear refusal."""

import contextlib
import shutil
import time
from pathlib import Path

import psutil
import pytest

from feature_store.contracts.manifests import StepManifest
from jobs.engine.manifests import ManifestStore
from tests.brief_recipe import BRIEF
from tests.derm_process import derm, start

pytestmark = pytest.mark.integration

HISTORY, DAY = "2025-03-01", "2025-03-02"
TRAIN = ("train", "--ds", DAY, "--upstream", "ctr")


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    derm(folder, "init", "--dataset", "simulated", "--recipe", BRIEF, "--days", "1")
    derm(folder, "run", "--from", HISTORY, "--to", DAY, "--steps", "simulate,ingest,validate,count")
    return folder


@pytest.fixture
def home(validated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(validated, tmp_path / "home"))


def trained(home: Path) -> StepManifest:
    manifest = ManifestStore(home / "manifests").get("train", DAY, "ctr")
    assert manifest
    return manifest


def test_two_processes_train_what_one_does(home: Path, validated: Path, tmp_path: Path) -> None:
    """Batches differ, since each process reads its half of the files; what is learned does not."""
    process = start(home, *TRAIN, DERM_TRAIN_PROCESSES="2")
    _, said = process.communicate()
    assert process.returncode == 0, said
    alone = Path(shutil.copytree(validated, tmp_path / "alone"))
    derm(alone, *TRAIN)
    two, one = trained(home).metrics, trained(alone).metrics
    assert two["snapshot_id"] == one["snapshot_id"]
    assert (two["rows"], two["days"]) == (one["rows"], one["days"])
    assert two["auc"] == pytest.approx(one["auc"], abs=0.05)
    assert two["loss"] == pytest.approx(one["loss"], rel=0.1)
    derm(home, "infer", "--ds", DAY, "--upstream", "ctr")


def test_a_process_that_dies_fails_the_step_and_leaves_nothing_half_written(home: Path) -> None:
    process = start(home, *TRAIN, DERM_TRAIN_PROCESSES="2")
    rank(process.pid).kill()
    _, said = process.communicate()
    assert process.returncode == 1
    assert f"training of {DAY} ctr failed on 2 processes" in said
    assert [p for p in (home / "snapshots").rglob("*") if not _is_draft(p, home)] == []
    assert ManifestStore(home / "manifests").get("train", DAY, "ctr") is None
    derm(home, *TRAIN)


def rank(parent: int) -> psutil.Process:
    """One of the processes that train, as soon as it is there."""
    while psutil.Process(parent).status() != psutil.STATUS_ZOMBIE:
        family = psutil.Process(parent).children(recursive=True)
        for process in family:
            # What the launcher asks of the system may have ended since it was listed.
            with contextlib.suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if "jobs.steps.train_rank" in command and "torch.distributed.run" not in command:
                    return process
        time.sleep(0.05)
    raise AssertionError("the command ended before any process trained")


def _is_draft(path: Path, home: Path) -> bool:
    inside = path.relative_to(home / "snapshots").parts
    return len(inside) < 2 or inside[1].startswith(".")
