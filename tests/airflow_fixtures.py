"""What the tests of Airflow share: a home that exists, and the program that reads the DAG files."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from jobs.settings import PROJECT, Home
from tests import reaper

AIRFLOW_PYTHON = PROJECT / ".venv-airflow" / "bin" / "python"

DAG_READER = PROJECT / "tests" / "dag_reader.py"


def make_home(folder: Path, dataset: str = "simulated") -> Path:
    """A home as `derm init` leaves it, empty otherwise."""
    home = Home(dataset=dataset, recipe="toy", first_ds="2025-03-01", start_ds="2025-03-08")
    home.save(folder)
    return folder


def airflow_environment(home: Path, airflow_home: Path, **more: str) -> dict[str, str]:
    """Environment of a program of Airflow's, independent of the one the tests run in."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(airflow_home),
        "PYTHONPATH": str(PROJECT),
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW_CONFIG": str(PROJECT / "infra" / "airflow.cfg"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "DERM_HOME": str(home),
        "DERM_BIN": "/opt/derm/bin/derm",
        reaper.MARK: os.environ.get(reaper.MARK, ""),
        **more,
    }


def read_dags(home: Path, airflow_home: Path, **environment: str) -> dict[str, Any]:
    """The DAGs as Airflow reads them, the loaded modules, and which of them our files brought."""
    done = subprocess.run(
        [str(AIRFLOW_PYTHON), str(DAG_READER), str(PROJECT / "dags")],
        env=airflow_environment(home, airflow_home, **environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read
