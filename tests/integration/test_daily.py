"""Days through a real scheduler, PostgreSQL, Redis and Spark: made, interrupted, broken, repaired.

The tests of this file are chapters of one story and run in order, on one home.
"""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.manifests import ManifestStore
from jobs.pipelines import tasks
from jobs.services import local, processes
from jobs.settings import PROJECT, Settings
from tests.airflow_fixtures import AIRFLOW_PYTHON
from tests.brief_recipe import BRIEF
from tests.pipelines import PIPELINE

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
]

DERM = PROJECT / ".venv" / "bin" / "derm"
FIRST, SECOND, THIRD = "2025-03-08", "2025-03-09", "2025-03-10"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("daily")
    made = _derm(folder, "init", "--dataset", "simulated", "--recipe", BRIEF)
    assert made.returncode == 0, made.stderr
    yield folder
    local.stop(Settings(home=folder))


def test_a_run_that_is_stopped_leaves_nothing_behind(home: Path) -> None:
    command = [str(DERM), "daily", "--days", "1"]
    with subprocess.Popen(
        command, env=_environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if re.match(rf"{FIRST} +ingest +success", line):
                break
        time.sleep(1)  # into the first training
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert _leftovers(home) == []


def test_the_next_run_takes_up_where_it_was_stopped(home: Path) -> None:
    run = _derm(home, "daily", "--days", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    ended = re.findall(r"^(\S+)  (\S+) +success", run.stdout, re.MULTILINE)
    every = {task.key for task in tasks.tasks(PIPELINE)}
    assert {key for day, key in ended if day == SECOND} == every
    # What had ended before it was stopped is not told again.
    told = {key for day, key in ended if day == FIRST}
    assert every - told <= {"gate", "ingest", "validate"}
    assert {"gate", "ingest"}.isdisjoint(told)
    assert _published_day(home) == SECOND
    assert (home / "report" / "index.html").exists()
    assert _leftovers(home) == []


def test_every_task_was_a_copy_of_the_warm_process(home: Path) -> None:
    logs = list((home / "services" / "airflow" / "logs").rglob(f"*{THIRD}*/task_id=*/*.log"))
    # A run begins when its day has ended: the run of the second day has the third's name.
    assert len(logs) == len(tasks.tasks(PIPELINE))
    assert [p.parent.name for p in logs if "a copy of the warm one" not in p.read_text()] == []


def test_only_the_owner_can_read_what_the_services_say(home: Path) -> None:
    folder = home / "services" / "airflow"
    password = json.loads((folder / "passwords.json").read_text())["admin"]
    said = sorted((folder / "logs").glob("*.log"))
    assert len(said) == 4
    assert [p.name for p in said if stat.S_IMODE(p.stat().st_mode) != 0o600] == []
    assert [p.name for p in said if password in p.read_text()] == []
    # PostgreSQL's own user, which root's needs, has to get through the folder above them.
    private = [folder / "logs"] + ([folder] if os.getuid() else [])
    assert [p for p in private if stat.S_IMODE(p.stat().st_mode) != 0o700] == []


def test_every_step_of_both_days_has_its_manifest(home: Path) -> None:
    manifests = ManifestStore(home / "manifests")
    for ds in (FIRST, SECOND):
        expected = sorted(
            (step.name, upstream or "")
            for step in PIPELINE.steps
            for upstream in PIPELINE.upstreams_of(step)
        )
        assert sorted((m.step, m.upstream or "") for m in manifests.of_day(ds)) == expected


def test_a_corrupt_day_stops_the_run_and_shows_why(home: Path) -> None:
    assert _derm(home, "simulate", "--ds", THIRD).returncode == 0
    broken = _truncate_a_source_file(home, THIRD)
    run = _derm(home, "daily", "--days", "3")
    assert run.returncode == 1
    assert f"{THIRD} ingest failed" in run.stdout
    assert broken.name in run.stdout
    assert f"{THIRD} failed" in run.stderr
    assert _published_day(home) == SECOND
    assert _leftovers(home) == []


def test_once_the_source_is_repaired_the_run_goes_on_and_its_release_begins_a_ranking(
    home: Path,
) -> None:
    assert _derm(home, "simulate", "--ds", THIRD, "--force").returncode == 0
    run = _derm(home, "daily", "--days", "3", "--rank")
    assert run.returncode == 0, run.stdout + run.stderr
    assert _published_day(home) == THIRD
    told = re.findall(r"^ranking +(\S+) +success", run.stdout, re.MULTILINE)
    rankers = ("ctr_ranker", "cvr_ranker")
    every = [f"{r}.{step.name}" for r in rankers for step in PIPELINE.ranking]
    assert sorted(told) == sorted([*every, "catch_up", *(f"{r}.draw" for r in rankers)])
    # Nobody asked for a day: the asset's event said which.
    logs = home / "services" / "airflow" / "logs"
    (begun,) = logs.glob("dag_id=derm_ranking/run_id=asset_triggered__*")
    (log,) = (begun / "task_id=catch_up").glob("*.log")
    assert f"derm rank --ds {THIRD} --earlier" in log.read_text()
    for ranker in rankers:
        assert (home / "rankers" / "exports" / ranker / "current").read_text().startswith(THIRD)
    page = (home / "report" / "index.html").read_text()
    assert "What are the embeddings worth" in page
    assert _leftovers(home) == []


def test_the_commands_of_the_readme_work_as_they_stand(home: Path, tmp_path: Path) -> None:
    # Where `make run` leaves the program and the home: below the folder one is in.
    (tmp_path / ".venv").symlink_to(PROJECT / ".venv")
    (tmp_path / ".derm").symlink_to(home)
    block = re.findall(
        r"^```bash\n(.*?)^```", (PROJECT / "README.md").read_text(), re.DOTALL | re.M
    )
    (commands,) = [b for b in block if "derm status" in b]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("DERM_")}
    done = subprocess.run(
        ["/bin/bash", "-ec", f"set -x\n{commands}"],
        cwd=tmp_path,
        env={**environment, "PATH": "/usr/bin:/bin", "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    local.stop(Settings(home=tmp_path / ".derm"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{THIRD} release: up to date" in done.stdout
    assert _published_day(home) == SECOND  # the last of them is a rollback


def _environment(home: Path) -> dict[str, str]:
    # Wide, so that no line of the output is broken in two.
    return {**os.environ, "DERM_HOME": str(home), "PYTHONPATH": str(PROJECT), "COLUMNS": "400"}


def _derm(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DERM), *arguments],
        env=_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )


def _published_day(home: Path) -> str:
    status = json.loads(_derm(home, "status", "--json").stdout)
    return str(status["published"]["ds"])


def _truncate_a_source_file(home: Path, ds: str) -> Path:
    manifest = ManifestStore(home / "manifests").get("simulate", ds, None)
    assert manifest is not None
    folder = home / manifest.output("source").uri
    path = sorted(folder.rglob("*events*.parquet"))[0]
    content = path.read_bytes()
    # Of the length it had: a file that is shorter is written again by its generator.
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    return path


def _leftovers(home: Path) -> list[str]:
    """Services of the home that still run, PostgreSQL and Redis by the files they keep."""
    found = [" ".join(p.cmdline()) for p in processes.marked(home)]
    services = home / "services"
    found += [str(p) for p in services.rglob("postmaster.pid")]
    # Redis keeps its port in its file, and no process.
    return found + [
        str(p) for p in services.rglob("server.json") if json.loads(p.read_text())["pid"]
    ]
