import os
import signal
import sys
import time
from pathlib import Path

import psutil

from jobs.services import processes

# Starts a child in a session of its own, as a task does; argument: whether both ignore SIGTERM.
FAMILY = """
import signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:], "child"], start_new_session=True)
time.sleep(120)
"""


def test_stop_ends_descendants_in_sessions_of_their_own(tmp_path: Path) -> None:
    family = _family(tmp_path, "polite")
    processes.stop(tmp_path, grace_s=5)
    assert [p for p in family if p.is_running() and p.status() != "zombie"] == []
    assert processes.marked(tmp_path) == []


def test_stop_ends_those_that_ignore_the_request(tmp_path: Path) -> None:
    _family(tmp_path, "stubborn")
    processes.stop(tmp_path, grace_s=0.5)
    assert processes.marked(tmp_path) == []


def test_the_orphans_of_a_killed_parent_are_found(tmp_path: Path) -> None:
    family = _family(tmp_path, "polite")
    os.kill(min(family, key=psutil.Process.create_time).pid, signal.SIGKILL)
    processes.stop(tmp_path, grace_s=5)
    assert processes.marked(tmp_path) == []


def test_another_home_is_left_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    _family(first, "polite")
    _family(second, "polite")
    processes.stop(first, grace_s=5)
    assert len(processes.marked(second)) == 2
    processes.stop(second, grace_s=5)


def _family(home: Path, manners: str) -> list[psutil.Process]:
    command = [sys.executable, "-c", FAMILY, manners]
    processes.spawn(command, home=home, env=dict(os.environ), log=home / "log")
    deadline = time.monotonic() + 20
    while len(found := processes.marked(home)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2
    time.sleep(0.3)  # the handlers are set by then
    return found
