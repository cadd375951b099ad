import os
import signal
import stat
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


def test_a_log_can_be_read_by_its_owner_only_also_one_that_was_open(tmp_path: Path) -> None:
    for name, before in (("new", None), ("old", "said before\n")):
        log = tmp_path / name
        if before:
            log.write_text(before)
            log.chmod(0o644)
        processes.spawn(["/bin/echo", "secret"], home=tmp_path, env={}, log=log)
        deadline = time.monotonic() + 20
        while "secret" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert log.read_text() == (before or "") + "secret\n"
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def _family(home: Path, manners: str) -> list[psutil.Process]:
    command = [sys.executable, "-c", FAMILY, manners]
    processes.spawn(command, home=home, env=dict(os.environ), log=home / "log")
    deadline = time.monotonic() + 20
    while len(found := processes.marked(home)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 2
    time.sleep(0.3)  # the handlers are set by then
    return found
