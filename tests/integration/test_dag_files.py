import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.reference import command_parser
from jobs.settings import PROJECT
from tests.airflow_fixtures import AIRFLOW_PYTHON, make_home, read_dags

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
]

GOLDEN = PROJECT / "tests" / "golden" / "dags"
HEAVY = ("torch", "pyspark", "pyarrow", "pandas", "numpy", "deltalake", "faiss", "redis")


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # The home's path is part of every command, so the golden files need a fixed one.
    home = make_home(tmp_path_factory.mktemp("home"))
    found = read_dags(home, tmp_path_factory.mktemp("airflow"))
    return json.loads(json.dumps(found).replace(str(home), "/var/lib/derm"))


def test_golden_dags(read: dict[str, Any]) -> None:
    found = {f"{dag_id}.json": _text(dag) for dag_id, dag in read["dags"].items()}
    if os.environ.get("UPDATE_GOLDEN"):
        for name, text in found.items():
            (GOLDEN / name).write_text(text)
    assert found == {p.name: p.read_text() for p in sorted(GOLDEN.glob("*.json"))}


def test_a_home_of_real_data_has_the_same_tasks(
    read: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = make_home(tmp_path_factory.mktemp("real"), "movielens")
    real = read_dags(home, tmp_path_factory.mktemp("airflow"))
    assert {n: set(d["tasks"]) for n, d in real["dags"].items()} == {
        n: set(d["tasks"]) for n, d in read["dags"].items()
    }
    # Nobody simulates it; everything else is as it was.
    assert "simulate" not in real["dags"]["derm_daily"]["tasks"]["ingest"]["command"]


def test_reading_the_dags_loads_nothing_that_computes(read: dict[str, Any]) -> None:
    assert [m for m in HEAVY if m in read["modules"]] == []


def test_every_command_spells_out_its_day(read: dict[str, Any]) -> None:
    for dag in read["dags"].values():
        for key, task in dag["tasks"].items():
            days = re.findall(r"--(?:ds|from|to) (\S+)", task["command"])
            # Retention counts back from the newest day in the lake, a look is at what is now.
            no_day = key in ("retain", "probe", "approve")
            assert set(days) == (set() if no_day else {"2025-03-08"})


def test_a_form_asks_for_what_the_commands_need(read: dict[str, Any]) -> None:
    form = read["dags"]["derm_backfill"]["params"]
    assert {n for n, s in form.items() if s.get("format") == "date"} == {"first_day", "last_day"}
    assert form["what"]["enum"] == ["labels", "features", "embeddings"]
    words = shlex.split(read["dags"]["derm_backfill"]["tasks"]["backfill"]["command"])
    command_parser("backfill").parse_args(words[3:])


def test_every_task_says_what_its_failure_means_and_what_to_do(read: dict[str, Any]) -> None:
    runbook = (PROJECT / "docs" / "runbook.md").read_text()
    sections = set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE))
    for dag in read["dags"].values():
        for key, task in dag["tasks"].items():
            assert "**If it fails.**" in task["doc"]
            assert "**What to do.**" in task["doc"]
            command_line = re.search(r"`derm (\w+)( [^`{}]*)?`", task["doc"])
            assert key == "approve" or command_line
            assert not command_line or command_line[1] in task["command"].split()
            named = re.findall(r"docs/runbook\.md#(\w+)", task["doc"])
            assert named
            assert set(named) <= sections
            assert task["timeout_s"] > 0
            assert task["owner"] == "derm"


def test_the_schedule_ends_with_the_last_day_of_the_settings(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    found = read_dags(home, tmp_path / "airflow", DERM_LAST_DS="2025-03-14")
    assert found["dags"]["derm_daily"]["end"] == "2025-03-14T00:00:00+00:00"


def test_dag_files_are_names_and_arrows() -> None:
    for path in (PROJECT / "dags").glob("*.py"):
        lines = path.read_text().splitlines()
        imported = re.findall(r"^(?:from|import) (\S+)", path.read_text(), re.MULTILINE)
        assert len(lines) <= 80, path
        assert set(imported) <= {
            "airflow.sdk",
            "jobs.pipelines.catalog",
            "jobs.scheduling.maintenance",
            "jobs.scheduling.orchestration",
            "jobs.settings",
        }


def _text(dag: dict[str, Any]) -> str:
    tasks = {
        key: {field: value for field, value in task.items() if field != "doc"}
        for key, task in dag["tasks"].items()
    }
    return json.dumps({**dag, "tasks": tasks}, indent=2, sort_keys=True) + "\n"
