"""`derm forget` looks into Airflow's database too, compressed values included."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from jobs.engine.runner import open_context
from jobs.settings import PROJECT, Home, Settings
from jobs.upkeep.leftovers import look
from tests.airflow_fixtures import AIRFLOW_PYTHON

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed"),
]

FILL = """
import sys, psycopg2
connection = psycopg2.connect(f"host={sys.argv[1]} user=postgres dbname=postgres")
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("CREATE TABLE task_note (note TEXT)")
value = "repeat('x', 20000) || ' u-in-a-note ' || repeat('y', 20000)"
cursor.execute(f"INSERT INTO task_note VALUES ({value})")
"""


def postgres(action: str, data: Path) -> None:
    command = [AIRFLOW_PYTHON, "-W", "ignore", "-m", "jobs.services.postgres", action, data]
    subprocess.run(command, check=True, cwd=PROJECT, stdout=subprocess.DEVNULL)


def test_a_note_in_the_database_is_found_whether_it_runs_or_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # A short name: the path of a socket has 107 bytes at most.
    tmp_path = tmp_path_factory.mktemp("db")
    day = "2025-03-01"
    Home(dataset="simulated", recipe="toy", first_ds=day, start_ds=day).save(tmp_path)
    data = tmp_path / "services" / "airflow" / "postgres"
    postgres("start", data)
    subprocess.run([AIRFLOW_PYTHON, "-c", FILL, data], check=True)
    postgres("stop", data)
    ctx = open_context(Settings(home=tmp_path), day)
    left, unproved = look(ctx, "user", ["u-in-a-note"], lambda _: False)
    assert "Airflow's database, table public.task_note" in left
    assert unproved == ()
    assert not (data / "postmaster.pid").exists()
    elsewhere = ctx.settings.model_copy(update={"airflow_env": Path("/nowhere")})
    bare = dataclasses.replace(ctx, settings=elsewhere)
    assert "searched as bytes only" in look(bare, "user", ["u-nowhere"], lambda _: False)[1][0]
