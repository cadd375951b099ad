"""Broken source data: refused with exit code 2, every cause named, the lake as it was."""

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.lake.lake import Lake
from jobs.cli import main
from tests.broken_tables import (
    CASES,
    TOMORROW,
    Change,
    dropped,
    first_rows,
    replaced,
)
from tests.data_fixtures import Home

GOOD, BAD = "2025-03-01", "2025-03-02"
TABLES = ("events", "users", "pins")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose first day is ingested and whose second is simulated only."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERM_HOME", str(path))
        assert main(["init", "--dataset", "simulated", "--recipe", "toy"]) == 0
        for ds in (GOOD, BAD):
            assert main(["simulate", "--ds", ds]) == 0
        assert main(["ingest", "--ds", GOOD]) == 0
    return path


@pytest.fixture
def home(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Home:
    shutil.copytree(prepared, tmp_path / "home")
    return Home(tmp_path / "home", monkeypatch, capsys)


def source(home: Home, table: str) -> Path:
    return home.path / "source" / "simulated" / f"ds={BAD}" / f"{table}.parquet"


def change(home: Home, table: str, how: Change) -> None:
    path = source(home, table)
    pq.write_table(how(pq.read_table(path, partitioning=None)), path)


def lake_state(home: Home) -> dict[str, tuple[int, tuple[str, ...], list[str]]]:
    lake = Lake(home.path / "lake")
    return {
        name: (
            lake.open(name).version(),
            lake.days(name),
            lake.root.files(lake.path(name), ".parquet"),
        )
        for name in TABLES
    }


@pytest.mark.parametrize("case", CASES)
def test_a_broken_table_is_refused_whole(home: Home, case: str) -> None:
    table, how, expected = CASES[case]
    before = lake_state(home)
    change(home, table, how)
    result = home.derm("ingest", "--ds", BAD)
    assert result.code == 2, result.err
    for text in (*expected, BAD, "hint:"):
        assert text in result.err
    assert lake_state(home) == before
    assert not (home.path / "manifests" / BAD / "ingest.json").exists()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "a source file; found no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "a readable Parquet file"),
        (lambda path: path.write_bytes(b""), "a readable Parquet file"),
        (lambda path: path.write_text("a,b\n1,2\n"), "a readable Parquet file"),
        (
            lambda path: path.write_bytes(
                path.read_bytes()[:4] + b"\0" * 4000 + path.read_bytes()[4004:]
            ),
            "a readable Parquet file",
        ),
    ],
    ids=["missing", "truncated", "no_bytes", "not_parquet", "overwritten"],
)
@pytest.mark.parametrize("table", TABLES)
def test_a_broken_file_is_refused(
    home: Home, table: str, damage: Callable[[Path], object], expected: str
) -> None:
    before = lake_state(home)
    damage(source(home, table))
    result = home.derm("ingest", "--ds", BAD)
    assert result.code == 2, result.err
    assert f"{table} of {BAD}: expected {expected}" in result.err
    assert f"derm simulate --ds {BAD} --force" in result.err
    assert lake_state(home) == before


def test_all_problems_are_named_at_once(home: Home) -> None:
    change(home, "events", first_rows("click", 2))
    change(home, "events", first_rows("ts", TOMORROW))
    change(home, "users", first_rows("tenure_days", float("nan")))
    change(home, "pins", dropped("price"))
    result = home.derm("ingest", "--ds", BAD)
    assert result.code == 2
    assert "4 problems" in result.err
    for text in ("events.click", "events.ts", "users.tenure_days", "pins.price"):
        assert text in result.err


def test_a_repaired_day_is_ingested(home: Home) -> None:
    whole = pq.read_table(source(home, "events"), partitioning=None)
    change(home, "events", first_rows("click", 2))
    assert home.derm("ingest", "--ds", BAD).code == 2
    pq.write_table(whole, source(home, "events"))
    assert home.derm("ingest", "--ds", BAD).code == 0
    assert home.derm("validate", "--ds", BAD).code == 0


def test_a_day_that_was_never_delivered(home: Home) -> None:
    result = home.derm("ingest", "--ds", "2025-03-05")
    assert result.code == 2
    assert "source of 2025-03-05 is not there" in result.err
    assert "derm simulate --ds 2025-03-05" in result.err


def test_a_day_that_was_never_ingested(home: Home) -> None:
    result = home.derm("validate", "--ds", BAD)
    assert result.code == 2
    assert f"derm ingest --ds {BAD}" in result.err


def renumbered(table: pa.Table, suffix: str) -> pa.Table:
    """The same events under other ids."""
    ids = pc.binary_join_element_wise(table["event_id"], suffix, "-")
    return table.set_column(0, table.schema.field("event_id"), ids)


GUARDS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "too_few_rows": (
        lambda t: t.slice(0, 2000),
        ("daily_rows 2000 < 3200", "--guard validate.daily_rows"),
    ),
    "too_many_rows": (
        lambda t: pa.concat_tables([t, renumbered(t, "b"), renumbered(t, "c")]),
        ("daily_rows ", " > 2e+04"),
    ),
    "no_click": (
        replaced("click", lambda t: pa.array([0] * t.num_rows, pa.int8())),
        ("rate_click 0 < ", "--guard validate.rate_click"),
    ),
    "all_clicks": (
        replaced("click", lambda t: pa.array([1] * t.num_rows, pa.int8())),
        ("rate_click 1", " > 0."),
    ),
    "no_label": (
        replaced("click", lambda t: pa.nulls(t.num_rows, pa.int8())),
        ("rate_click nan",),
    ),
    "half_a_day": (
        lambda t: t.filter(pc.less(t["ts"], pa.scalar(dt.datetime(2025, 3, 2, 18, tzinfo=dt.UTC)))),
        ("freshness_hours 6", "> 3"),
    ),
}


@pytest.mark.parametrize("case", GUARDS)
def test_a_day_that_is_not_normal_stops_at_validate(home: Home, case: str) -> None:
    how, expected = GUARDS[case]
    change(home, "events", how)
    assert home.derm("ingest", "--ds", BAD).code == 0
    before = lake_state(home)
    result = home.derm("validate", "--ds", BAD)
    assert result.code == 3
    assert f"{BAD} does not look like a normal day" in result.err
    assert all(text in result.err for text in expected), result.err
    assert lake_state(home) == before
    assert not (home.path / "manifests" / BAD / "validate.json").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ("--dataset", "nothing"),
            "simulated | market | market_trees | market_one_taste | kuairand | movielens | trivago",
        ),
        (("--dataset", "missing.toml"), "missing.toml"),
        (("--dataset", "kuairand"), "derm init --dataset kuairand --source DIR"),
        (("--dataset", "movielens", "--source", "/nowhere"), "found:    /nowhere"),
        (
            ("--dataset", "simulated", "--first", "2025-03-05", "--start", "2025-03-01"),
            "--start on or after 2025-03-05",
        ),
    ],
)
def test_init_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    expected: str,
) -> None:
    result = Home(tmp_path, monkeypatch, capsys).derm("init", *argv)
    assert result.code == 2
    assert expected in result.err
    assert not (tmp_path / "home.json").exists()


def test_a_world_that_is_over(home: Home) -> None:
    result = home.derm("simulate", "--ds", "2026-03-01")
    assert result.code == 2
    assert "expected a day from 2025-03-01 to 2025-06-28" in result.err
