"""Airflow knows every command and every variable that the cluster profile gives it."""

import json
import shlex
import subprocess
from pathlib import Path
from string import Template

import pytest

from jobs.settings import PROJECT
from tests.airflow_fixtures import AIRFLOW_PYTHON, airflow_environment
from tests.cluster.compose import Compose

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
]


def test_airflow_knows_every_command_and_variable(tmp_path: Path) -> None:
    processes = Compose(tmp_path / "home", tmp_path).processes()
    commands = [
        Template(" ".join(map(shlex.quote, call))).substitute(process.environment)
        for process in processes
        for line in (process.command, process.healthcheck)
        for call in airflow(line)
    ]
    variables = {v for p in processes for v in p.environment if v.startswith("AIRFLOW__")}
    assert len(commands) >= 9
    assert len(variables) >= 10
    asked = {"commands": [shlex.split(c) for c in commands], "variables": sorted(variables)}
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), str(PROJECT / "tests" / "cluster_commands.py")],
        input=json.dumps(asked),
        env=airflow_environment(tmp_path / "home", tmp_path / "airflow"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def airflow(command: tuple[str, ...]) -> list[list[str]]:
    """The calls of `airflow` in a command, which may be a shell's."""
    if command[:2] == ("sh", "-c"):
        calls = [shlex.split(call) for call in command[2].partition("<<")[0].split("&&")]
    else:
        calls = [list(command)]
    return [words[1:] for words in calls if words[:1] == ["airflow"]]
