"""What a test started ends with it: when it fails or is struck, or its lane or pytest is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.settings import PROJECT
from tests import reaper

_STORY = """
import json, os, subprocess, sys, time, pathlib
import pytest
from jobs.services.redis import ensure_redis
from jobs.settings import Settings

def begin(name, **how):
    # As a service does it: a session of its own, and nobody waits for it.
    service = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, **how
    )
    pathlib.Path(r"{folder}", name).write_text(str(service.pid))
    return service

def store(home):
    ensure_redis(Settings(home=home))
    state = json.loads((home / "services" / "redis" / "server.json").read_text())
    pathlib.Path(r"{folder}", "store").write_text(str(state["pid"]))

@pytest.fixture(scope="module")
def server():
    service = begin("server")
    time.sleep(0.1)  # longer than the clock of processes is coarse
    yield service
    service.kill()
    service.wait()

def test_a_chapter_that_is_struck(server, tmp_path):
    begin("left").returncode = 0
    {struck}

def test_the_next_chapter_meets_the_server_and_nothing_else(server):
    assert server.poll() is None
    import psutil
    pid = int(pathlib.Path(r"{folder}", "left").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
"""


def story(folder: Path, struck: str, *options: str) -> list[str]:
    """The command that runs the story in a pytest of its own, beside the project's conftest."""
    (folder / "conftest.py").write_text("from tests.conftest import *  # noqa\n")
    (folder / "test_story.py").write_text(_STORY.format(folder=folder, struck=struck))
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir",
            str(folder), "-c", str(folder / "none.ini"), *options, str(folder)]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT)}


def lives(folder: Path, name: str) -> bool:
    pid = int((folder / name).read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"


@pytest.mark.parametrize("struck", ["assert False", "import os; raise KeyboardInterrupt"])
def test_a_chapter_that_is_struck_leaves_nothing(tmp_path: Path, struck: str) -> None:
    (tmp_path / "none.ini").write_text("[pytest]\n")
    done = subprocess.run(
        story(tmp_path, struck),
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if struck == "assert False":
        assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert not lives(tmp_path, "left")
    assert not lives(tmp_path, "server")


def test_a_lane_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "none.ini").write_text("[pytest]\n")
    struck = "store(tmp_path); os.kill(os.getpid(), 9)"
    command = story(tmp_path, struck, "-n1", "--max-worker-restart=0")
    # Into a file: a pipe would stay open as long as what it left.
    with (tmp_path / "said").open("w") as said:
        subprocess.run(command, env=environment(), cwd=tmp_path, stdout=said, check=False)
    assert "crashed while running" in (tmp_path / "said").read_text()
    assert not lives(tmp_path, "store")
    assert not lives(tmp_path, "left")
    assert not lives(tmp_path, "server")


def test_what_a_killed_run_has_left_ends_when_the_next_one_begins(tmp_path: Path) -> None:
    (tmp_path / "none.ini").write_text("[pytest]\n")
    command = story(tmp_path, "import time; time.sleep(600)")
    with subprocess.Popen(command, env=environment(), cwd=tmp_path) as run:
        while not (tmp_path / "left").exists() or not (tmp_path / "left").read_text():
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    assert lives(tmp_path, "left")
    assert lives(tmp_path, "server")
    reaper.reap(reaper.orphans())
    assert not lives(tmp_path, "left")
    assert not lives(tmp_path, "server")
    # What belongs to a run that goes on is nobody's orphan.
    assert reaper.mark() == os.environ[reaper.MARK]
