"""Commands in copies of a warm process: they run, end and are killed as new processes are."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.engine import locks
from jobs.services import processes, running, warm_socket
from jobs.settings import PROJECT
from tests.airflow_fixtures import make_home

pytestmark = pytest.mark.integration

DERM = Path(sys.executable).with_name("derm")
DAY = "2025-03-08"
_LONG_S = 120.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home deeper than a socket's address is long, its warm process, and a file that it read."""
    deep = tmp_path_factory.mktemp("warm") / ("a folder of a deep home" * 4)
    folder = make_home(deep)
    (folder / "sitecustomize.py").write_text("")
    environment = {
        **os.environ,
        "DERM_HOME": str(folder),
        "DERM_THREADS": "1",
        "PYTHONPATH": f"{folder}:{PROJECT}",
        processes.MARK: str(folder),
        "SPT_NOENV": "1",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        yield folder
    processes.stop(folder)


@pytest.fixture
def warm(home: Path) -> psutil.Process:
    """The warm process, started where there is none."""
    if not (found := _warm(home)):
        command = [sys.executable, "-m", "jobs.cli.warm", "-" * 200]
        with pytest.MonkeyPatch.context() as patched:
            patched.delenv("PYTEST_CURRENT_TEST")
            processes.spawn(command, home=home, env=os.environ, log=home / "warm.log")
        eventually(lambda: _answers(home))
        found = _warm(home)
    return found[0]


def begin(home: Path, arguments: str) -> running.Running:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PYTEST_CURRENT_TEST")  # it differs from the one the warm process has
        return running.begin(f"DERM_HOME='{home}' {DERM} {arguments}")


def run(home: Path, arguments: str) -> tuple[str, list[str], int]:
    """How a command ran, what it printed, and its exit code."""
    begun = begin(home, arguments)
    lines = list(begun.lines())
    return begun.how, lines, begun.wait()


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (f"gate --ds {DAY} --json", 0),
        ("nonsense", 2),
        (f"verify --ds {DAY} --upstream ctr", 2),
    ],
)
def test_a_copy_says_and_returns_what_a_new_process_does(
    home: Path, arguments: str, code: int
) -> None:
    how, lines, returned = run(home, arguments)
    assert (how.endswith("a copy of the warm one"), returned) == (True, code)
    new = subprocess.run(
        [str(DERM), *arguments.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert new.returncode == code
    if "--json" in arguments:
        said = [json.loads(text) for text in (lines[-1], new.stdout.splitlines()[-1])]
        assert said[0]["step"] == said[1]["step"] == "gate"
    else:
        assert lines == [line.rstrip() for line in new.stdout.splitlines()]


def test_a_copy_is_a_process_of_its_own(home: Path, warm: psutil.Process) -> None:
    with waiting(home) as gate:
        copy = psutil.Process(gate.pid)
        assert (copy.ppid(), os.getsid(copy.pid)) == (warm.pid, copy.pid)
        assert copy in processes.marked(home)
        eventually(lambda: str(DERM) in copy.cmdline())
        assert f"gate --ds {DAY}" in " ".join(copy.cmdline())
        assert stat.S_IMODE(warm_socket.path(home).stat().st_mode) == 0o600
    assert "gate: done" in " ".join(gate.lines())
    assert gate.wait() == 0


@pytest.mark.usefixtures("warm")
def test_a_copy_ends_when_it_is_asked_to(home: Path) -> None:
    with waiting(home) as gate:
        gate.terminate()
        assert list(gate.lines()) == []
        assert gate.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("warm")
def test_a_copy_that_was_killed_has_failed(home: Path) -> None:
    with waiting(home) as gate:
        os.kill(gate.pid, signal.SIGKILL)
        assert gate.wait() == -signal.SIGKILL


def test_a_copy_outlives_its_parent(home: Path, warm: psutil.Process) -> None:
    with waiting(home) as gate:
        warm.kill()
        eventually(lambda: not _warm(home))
        assert psutil.pid_exists(gate.pid)
    assert "gate: done" in " ".join(gate.lines())
    assert gate.wait() == 0


def test_an_orphan_that_was_killed_has_failed(home: Path, warm: psutil.Process) -> None:
    with waiting(home) as gate:
        warm.kill()
        warm.wait()
        os.kill(gate.pid, signal.SIGKILL)
        assert gate.wait() == -signal.SIGKILL


def test_without_it_a_command_is_a_new_process(home: Path, warm: psutil.Process) -> None:
    warm.kill()
    warm.wait()
    how, lines, code = run(home, f"gate --ds {DAY}")
    assert "copy" not in how
    assert (code, lines[-1].startswith(f"{DAY} gate: done")) == (0, True)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("variable", ["DERM_THREADS", "OMP_PROC_BIND", "LD_PRELOAD"])
def test_what_was_read_early_makes_a_new_process(
    home: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "2" if "THREADS" in variable else "")
    assert "copy" not in run(home, f"gate --ds {DAY}")[0]
    monkeypatch.undo()


@pytest.mark.usefixtures("warm")
def test_a_copy_has_the_environment_that_was_given(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERM_ENGINE", "nonsense")
    how, lines, code = run(home, f"gate --ds {DAY}")
    assert "copy" in how
    assert (code, lines[0]) == (2, "derm: DERM_ENGINE has a value it cannot have")


@pytest.mark.usefixtures("warm")
def test_an_asker_that_is_gone_leaves_no_process(home: Path) -> None:
    command = f"gate --ds {DAY}"
    asked = running.parse(f"DERM_HOME='{home}' {DERM} {command}")
    assert asked
    read, write = os.pipe()
    asked[0].pop("PYTEST_CURRENT_TEST")
    with warm_socket.connect(warm_socket.path(home), 10) as asker:
        request = {"environment": asked[0], "arguments": asked[1], "folder": str(home)}
        warm_socket.send(asker, request, write)
        pid = int(warm_socket.receive(asker)[0]["pid"])
    os.close(write)
    with os.fdopen(read) as output:
        assert output.read() == ""
    eventually(lambda: not psutil.pid_exists(pid))


def test_files_that_changed_are_read_by_new_processes(home: Path, warm: psutil.Process) -> None:
    assert "copy" in run(home, "train --help")[0]
    (home / "sitecustomize.py").write_text("# changed\n")
    assert "copy" not in run(home, "train --help")[0]
    warm.wait(_LONG_S)  # it ends: another one would read them
    assert "sitecustomize.py has changed" in (home / "warm.log").read_text()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("derm gate --ds 2025-03-08", ["derm", "gate", "--ds", "2025-03-08"]),
        ("A='a b' B= derm get 'u 1'", ["derm", "get", "u 1"]),
        ("derm get | head", None),
        ("derm get > file", None),
        ("derm get $USER", None),
        ("derm get `id`; derm down", None),
        ("derm get *", None),
        ("derm 'unfinished", None),
        ("A=b", None),
    ],
)
def test_only_plain_words_are_not_left_to_the_shell(command: str, words: list[str] | None) -> None:
    parsed = running.parse(command)
    assert (parsed and parsed[1]) == words
    if command.startswith("A="):
        assert not parsed or parsed[0]["A"] == "a b"


@contextmanager
def waiting(home: Path) -> Iterator[running.Running]:
    """A gate that waits, while this test has the pipeline alone."""
    with locks.alone(home, "a test"):
        gate = begin(home, f"gate --ds {DAY}")
        assert "copy" in gate.how
        assert "waiting: a test" in next(gate.lines())
        yield gate


def _warm(home: Path) -> list[psutil.Process]:
    found = [p for p in processes.marked(home) if "jobs.cli.warm" in " ".join(p.cmdline())]
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]


def _answers(home: Path) -> bool:
    try:
        warm_socket.connect(warm_socket.path(home), 1).close()
    except OSError:
        return False
    return True


def eventually(happened: Callable[[], bool]) -> None:
    """Wait until it has."""
    deadline = time.monotonic() + _LONG_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
