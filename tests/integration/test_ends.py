"""Every end of a command is a message and a documented exit code; a traceback is for debugging."""

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.services.redis import embedded_url
from jobs.settings import PROJECT, Settings
from tests.brief_recipe import BRIEF
from tests.derm_process import start
from tests.report_fixtures import make_home

NOBODY = 65534


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with two days, in a folder that any user of the machine can reach."""
    folder = Path(tempfile.mkdtemp(prefix="derm-ends-"))
    folder.chmod(0o755)
    make_home(folder / "home", days=2)
    yield folder / "home"
    shutil.rmtree(folder)


def run(home: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DERM_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "import sys; from jobs.cli import main; sys.exit(main())"]
    return subprocess.run(
        [*command, *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": PROJECT}
        | {"env": environment, "check": False}
        | options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("command", [("metrics",), ("status",), ("status", "--json")])
def test_a_reader_that_leaves_is_no_error(home: Path, command: tuple[str, ...]) -> None:
    process = start(home, *command)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()


def test_a_full_disk_under_the_output(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(home, "status", "--json", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("derm: the disk is full")
    assert "Traceback" not in done.stderr


def test_a_disk_that_takes_no_more(home: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    target = tmp_path / "derm.prom"
    target.write_text("before")
    done = run(home, "metrics", "--output", str(target), preexec_fn=limit)
    assert done.returncode == 1
    assert "may not grow further" in done.stderr
    assert "Traceback" not in done.stderr
    assert target.read_text() == "before"


def test_a_home_that_may_not_be_written(home: Path) -> None:
    parent = home.parent / "readonly"
    parent.mkdir()
    parent.chmod(0o555)
    libc, drop, override = ctypes.CDLL(None), 24, 1

    def obey() -> None:
        libc.prctl(drop, override, 0, 0, 0)  # root, too, asks for permission then

    done = run(parent / "home", "init", "--dataset", "simulated", "--json", preexec_fn=obey)
    assert done.returncode == 1
    assert "a file may not be touched" in done.stderr
    assert str(parent / "home") in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 1


def test_what_nobody_expected_is_said_in_a_line_and_traced_on_demand(tmp_path: Path) -> None:
    make_home(tmp_path / "home", days=1)
    shutil.rmtree(tmp_path / "home" / "manifests")
    (tmp_path / "home" / "manifests").mkdir()
    (tmp_path / "home" / "manifests" / "2025-03-01").mkdir()
    (tmp_path / "home" / "manifests" / "2025-03-01" / "train.ctr.json").mkdir()
    done = run(tmp_path / "home", "status")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "IsADirectoryError" in done.stderr
    assert "feature_store/contracts/sealed.py:" in done.stderr
    traced = run(
        tmp_path / "home",
        "status",
        env={**os.environ, "DERM_DEBUG": "1"} | {"DERM_HOME": str(tmp_path / "home")},
    )
    assert "Traceback" in traced.stderr
    assert traced.returncode == 1


def test_ctrl_c_ends_with_a_sentence(tmp_path: Path) -> None:
    assert run(tmp_path, "init", "--dataset", "simulated", "--recipe", BRIEF).returncode == 0
    process = start(
        tmp_path,
        "run",
        "--from",
        "2025-03-01",
        "--to",
        "2025-03-31",
        "--steps",
        "simulate,ingest,validate",
    )
    while not (tmp_path / "manifests" / "2025-03-02" / "ingest.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "command",
    [
        ("get", "user", "u1"),
        ("search", "--user", "u1"),
        ("metrics",),
        ("status",),
        ("rollback",),
        ("audit", "--ds", "2025-03-01"),
    ],
)
def test_without_a_home_nothing_is_made_and_nothing_runs(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(tmp_path / "home", *command)
    assert done.returncode == 2
    assert "is not a derm home" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert embedded_url(tmp_path / "home") is None


def test_down_needs_no_environment(tmp_path: Path) -> None:
    """Airflow's environment was removed, and its database server still runs."""
    data = tmp_path / "services" / "airflow" / "postgres"
    data.mkdir(parents=True)
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "postgres")
    server = subprocess.Popen([program, "600"])
    threading.Thread(target=server.wait).start()  # it must not stay as a zombie
    (data / "postmaster.pid").write_text(f"{server.pid}\n{data}\n")
    environment = {**os.environ, "DERM_AIRFLOW_ENV": "/nowhere", "DERM_HOME": str(tmp_path)}
    done = run(tmp_path, "down", env=environment)
    assert done.returncode == 0, done.stderr
    assert server.wait(10) == -signal.SIGINT
    # A record of before the machine's last start names nobody, or somebody else.
    assert run(tmp_path, "down", env=environment).returncode == 0
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert run(tmp_path, "down", env=environment).returncode == 0


def test_a_default_home_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    assert run(home, "init", "--dataset", "simulated", "--recipe", BRIEF).returncode == 0
    assert run(home, "simulate", "--ds", "2025-03-01").returncode == 0
    assert run(home, "ingest", "--ds", "2025-03-01").returncode == 0
    for path in (home, *home.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_home_that_was_open_is_closed_and_one_of_a_group_stays_so(tmp_path: Path) -> None:
    make_home(tmp_path, days=1)
    tmp_path.chmod(0o755)
    done = run(tmp_path, "status")
    assert "its owner's now" in done.stderr
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    tmp_path.chmod(0o750)
    target = tmp_path / "other.prom"
    assert "owner" not in run(tmp_path, "metrics", "--output", str(target)).stderr
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_another_users_database_gets_through_and_nobody_else(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root's database is another user")
    make_home(tmp_path, days=1)
    database = tmp_path / "services" / "airflow" / "postgres"
    database.mkdir(parents=True)
    os.chown(database, NOBODY, NOBODY)
    tmp_path.chmod(0o755)
    assert run(tmp_path, "status").returncode == 0
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path, *tmp_path.iterdir())}
    assert modes.pop(tmp_path.name) == 0o711
    assert modes.pop("services") == 0o711
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    assert Settings(home=tmp_path).home == tmp_path
