"""Broken source data: refused with exit code 2, every cause named, the lake as it was."""

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.lake import Lake
from jobs.cli import main
from tests.data_fixtures import Home

GOOD, BAD = "2025-03-01", "2025-03-02"
TABLES = ("events", "users", "pins")
Change = Callable[[pa.Table], pa.Table]


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
            sorted(str(p) for p in lake.path(name).rglob("*.parquet")),
        )
        for name in TABLES
    }


def retyped(name: str, kind: pa.DataType) -> Change:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        return table.set_column(index, name, table[name].cast(kind))

    return apply


def replaced(name: str, values: Callable[[pa.Table], object]) -> Change:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        column = values(table)
        array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
        return table.set_column(index, pa.field(name, array.type), array)

    return apply


def first_rows(name: str, *bad: object) -> Change:
    """The same column with its first values replaced."""

    def values(table: pa.Table) -> pa.Array:
        kept = table[name].slice(len(bad)).to_pylist()
        return pa.array([*bad, *kept], table.schema.field(name).type)

    return replaced(name, values)


def dropped(name: str) -> Change:
    return lambda table: table.drop([name])


def nan_vectors(table: pa.Table) -> pa.Array:
    vectors = [np.frombuffer(v.as_py(), "<f4").copy() for v in table["content"]]
    vectors[3][5] = np.nan
    return pa.array([v.tobytes() for v in vectors], pa.binary())


def without_pin_of(row: int) -> Change:
    """Pins without the one that an early event shows."""
    return lambda table: table.filter(pc.not_equal(table["pin_id"], table["pin_id"][row]))


YESTERDAY = dt.datetime(2025, 3, 1, 23, 59, 59, 999999, tzinfo=dt.UTC)
TOMORROW = dt.datetime(2025, 3, 3, tzinfo=dt.UTC)
LONG = [f"p{i}" for i in range(51)]

CASES: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "empty_events": ("events", lambda t: t.slice(0, 0), ("events of", "at least one row")),
    "empty_users": ("users", lambda t: t.slice(0, 0), ("users of", "at least one row")),
    "empty_pins": ("pins", lambda t: t.slice(0, 0), ("pins of", "at least one row")),
    "missing_column": ("events", dropped("surface"), ("events.surface", "expected the column")),
    "missing_label": ("events", dropped("click"), ("events.click", "expected the column")),
    "missing_feature": ("users", dropped("country"), ("users.country", "expected the column")),
    "missing_key": ("pins", dropped("pin_id"), ("pins.pin_id", "expected the column")),
    "float_id": (
        "events",
        replaced("user_id", lambda t: np.arange(t.num_rows) * 1.0),
        ("events.user_id", "type string", "found double"),
    ),
    "string_number": (
        "pins",
        replaced("price", lambda t: ["cheap"] * t.num_rows),
        ("pins.price", "type float32", "found string"),
    ),
    "float_label": (
        "events",
        retyped("click", pa.float64()),
        ("events.click", "type int8", "found double"),
    ),
    "naive_time": (
        "events",
        retyped("ts", pa.timestamp("us")),
        ("events.ts", "type timestamp", "found timestamp[us]"),
    ),
    "numeric_time": ("events", retyped("ts", pa.int64()), ("events.ts", "found int64")),
    "string_list": (
        "users",
        replaced("engaged_pins", lambda t: ["p1,p2"] * t.num_rows),
        ("users.engaged_pins", "type list<string>", "found string"),
    ),
    "null_key": ("events", first_rows("event_id", None), ("events.event_id", "1 nulls in")),
    "null_user": ("events", first_rows("user_id", None, None), ("events.user_id", "2 nulls in")),
    "null_snapshot_key": ("users", first_rows("user_id", None), ("users.user_id", "1 nulls")),
    "null_list": ("users", first_rows("interests", None), ("users.interests", "1 nulls")),
    "null_element": (
        "users",
        replaced("interests", lambda t: [["topic_01", None]] * t.num_rows),
        ("users.interests", "no null elements"),
    ),
    "empty_key": ("pins", first_rows("pin_id", ""), ("pins.pin_id", "a key that is not empty")),
    "duplicate_event": (
        "events",
        lambda t: pa.concat_tables([t, t.slice(0, 5)]),
        ("events.event_id", "unique keys", "5 of", "e0001-0000", ", ..."),
    ),
    "duplicate_user": (
        "users",
        lambda t: pa.concat_tables([t, t.slice(7, 1)]),
        ("users.user_id", "unique keys", "1 of"),
    ),
    "too_early": ("events", first_rows("ts", YESTERDAY), ("events.ts", "within the day", "1 of")),
    "too_late": ("events", first_rows("ts", TOMORROW), ("events.ts", "2025-03-03 00:00:00")),
    "label_two": ("events", first_rows("click", 2), ("events.click", "values <= 1", "1 of", ": 2")),
    "label_minus": ("events", first_rows("conversion", -1), ("events.conversion", "values >= 0")),
    "label_huge": (
        "events",
        replaced("click", lambda t: [300] * t.num_rows),
        ("events.click", "type int8", "300"),
    ),
    "unknown_surface": (
        "events",
        first_rows("surface", "XX", "XX", "YY"),
        ("events.surface", "one of HF RP SR", "'XX', 'YY'"),
    ),
    "unknown_action": ("events", first_rows("action", "buy"), ("events.action", "'buy'")),
    "negative_duration": ("events", first_rows("duration_s", -1.0), ("events.duration_s", ">= 0")),
    "nan_feature": (
        "users",
        first_rows("tenure_days", float("nan"), float("inf")),
        ("users.tenure_days", "finite numbers", "2 of"),
    ),
    "infinite_context": (
        "events",
        first_rows("position", float("-inf")),
        ("events.position", "finite numbers", "-inf"),
    ),
    "nan_vector": ("pins", replaced("content", nan_vectors), ("pins.content", "finite vectors")),
    "short_vector": (
        "pins",
        first_rows("content", b"1234"),
        ("pins.content", "64 float32 (256 bytes)", "1 of", ": 4"),
    ),
    "long_sequence": (
        "users",
        first_rows("engaged_pins", LONG),
        ("users.engaged_pins", "at most 50 elements", ": 51"),
    ),
    "unknown_pin": ("pins", without_pin_of(0), ("events.pin_id", "every pin of the events")),
    "unknown_user": ("users", lambda t: t.slice(900), ("events.user_id", "every user", ", ...")),
    "doubled_column": (
        "users",
        lambda t: t.append_column("country", t["country"]),
        ("users.country", "one column of a name"),
    ),
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
    "too_few_rows": (lambda t: t.slice(0, 2000), ("3200 to 20000 rows", "found 2000 rows")),
    "too_many_rows": (
        lambda t: pa.concat_tables([t, renumbered(t, "b"), renumbered(t, "c")]),
        ("3200 to 20000 rows", "rows"),
    ),
    "no_click": (
        replaced("click", lambda t: pa.array([0] * t.num_rows, pa.int8())),
        ("events.click", "a share of positives from 0.002 to 0.15; found 0"),
    ),
    "all_clicks": (
        replaced("click", lambda t: pa.array([1] * t.num_rows, pa.int8())),
        ("events.click", "found 1"),
    ),
    "no_label": (
        replaced("click", lambda t: pa.nulls(t.num_rows, pa.int8())),
        ("events.click", "no labelled row"),
    ),
    "half_a_day": (
        lambda t: t.filter(pc.less(t["ts"], pa.scalar(dt.datetime(2025, 3, 2, 18, tzinfo=dt.UTC)))),
        ("events.ts", "an event in the last 3 h of the day", "h before its end"),
    ),
}


@pytest.mark.parametrize("case", GUARDS)
def test_a_day_that_is_not_normal_stops_at_validate(home: Home, case: str) -> None:
    how, expected = GUARDS[case]
    change(home, "events", how)
    assert home.derm("ingest", "--ds", BAD).code == 0
    before = lake_state(home)
    result = home.derm("validate", "--ds", BAD)
    assert result.code == 2
    for text in (*expected, f"derm ingest --ds {BAD}"):
        assert text in result.err
    assert lake_state(home) == before
    assert not (home.path / "manifests" / BAD / "validate.json").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--dataset", "nothing"), "simulated | kuairand | movielens | trivago"),
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
