"""Data that comes late: what is waited for, and the task that waits."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.datasets import readiness
from tests.airflow_fixtures import AIRFLOW_PYTHON, read_dags
from tests.integration.test_own_dataset import DAYS, DECLARATION, deliver

_READY = """
[ready]
marker = "events/{ds}.done"
min_events = 144
poke_minutes = 3
timeout_hours = 5
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a shop that says when a day is whole; both days are."""
    declaration = deliver(tmp_path / "shop", DECLARATION + _READY)
    for ds in DAYS:
        (tmp_path / "shop" / "events" / f"{ds}.done").touch()
    monkeypatch.setenv("DERM_HOME", str(tmp_path / "home"))
    assert main(["init", "--dataset", str(declaration), "--source", str(tmp_path / "shop")]) == 0
    return tmp_path / "shop"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_whole_day_is_ready(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ready", "--ds", DAYS[1], "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"ds": DAYS[1], "ready": True, "waiting_for": []}


@pytest.mark.parametrize(
    ("damage", "file", "named"),
    [
        (Path.unlink, f"events/{DAYS[1]}.parquet", "the file"),
        (Path.unlink, f"customers/{DAYS[1]}.parquet", "the file"),
        (Path.unlink, f"events/{DAYS[1]}.done", "the marker"),
        (cut_short, f"events/{DAYS[1]}.parquet", "the footer"),
    ],
)
def test_what_is_not_there_is_named_and_is_no_failure(
    shop: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    file: str,
    named: str,
) -> None:
    damage(shop / file)
    assert main(["ready", "--ds", DAYS[1]]) == 4
    assert f"{named} {shop / file}" in capsys.readouterr().out.replace("footer of", "footer")
    assert main(["ready", "--ds", DAYS[0]]) == 0


def test_too_few_rows_are_not_a_day_yet(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shop.parent / "shop" / "shop.toml"
    path.write_text(path.read_text().replace("min_events = 144", "min_events = 145"))
    assert main(["ready", "--ds", DAYS[1]]) == 4
    assert "145 rows" in capsys.readouterr().out


def test_a_skipped_day_is_waited_for_no_longer(shop: Path) -> None:
    (shop / "events" / f"{DAYS[1]}.parquet").unlink()
    assert main(["ready", "--ds", DAYS[1]]) == 4
    assert main(["skip", "--ds", DAYS[1], "--reason", "the site was down"]) == 0
    assert main(["ready", "--ds", DAYS[1]]) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min_events = 144", "min_events = -1"),
        ("poke_minutes = 3", "poke_minutes = 0"),
        ("timeout_hours = 5", "timeout_hour = 5"),
        ('path = "events/{ds}.parquet"', 'path = "events.parquet"'),
    ],
)
def test_a_wrong_declaration_is_refused(
    shop: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    path = shop / "shop.toml"
    path.write_text(path.read_text().replace(old, new))
    assert main(["ready", "--ds", DAYS[1]]) == 2
    assert "docs/howto/own_dataset.md" in capsys.readouterr().err


def test_only_who_declares_it_waits(shop: Path) -> None:
    declared = readiness.declared(str(shop / "shop.toml"))
    assert declared
    assert (declared.poke_minutes, declared.timeout_hours) == (3, 5)
    (shop / "shop.toml").write_text(DECLARATION)
    assert readiness.declared(str(shop / "shop.toml")) is None
    assert readiness.declared("simulated") is None


@pytest.mark.airflow
@pytest.mark.skipif(not AIRFLOW_PYTHON.exists(), reason="make .venv-airflow/.airflow")
def test_the_dag_waits_before_it_ingests(shop: Path, tmp_path: Path) -> None:
    daily = read_dags(tmp_path / "home", tmp_path / "airflow")["dags"]["derm_daily"]["tasks"]
    wait = daily["wait"]
    assert daily["gate"]["downstream"] == ["wait"]
    assert wait["downstream"] == ["ingest"]
    assert wait["command"].endswith(f"ready --ds {DAYS[1]}")
    assert (wait["mode"], wait["poke_s"], wait["gives_up_s"]) == ("reschedule", 180, 5 * 3600)
