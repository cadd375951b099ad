"""The lake's one promise: a day is wholly the old one or wholly the new one."""

import multiprocessing
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import (
    CommitConflict,
    ContractViolation,
    DamagedFile,
    MissingInput,
)
from feature_store.contracts.tables import raw_table
from feature_store.lake.lake import Lake, rows_digest, stage_file
from feature_store.lake.maintenance import drop_days, tidy
from tests.aggregation_fixtures import FIRST, SPEC, commit_events, commit_raw, random_day

TABLE = raw_table("ctr", "user")
LAYOUT = {"dtype": "float32", "dim": "8", "buckets": "2"}
SPAWN = multiprocessing.get_context("spawn")


def put(lake: Lake, seed: int, ds: str = FIRST) -> str:
    rows = random_day(seed, ds, "user")
    return commit_raw(lake, "ctr", "user", ds, rows, buckets=2, dim=8).digest


def race(root: Path, seed: int, barrier, results) -> None:
    """Commit the same partition as another process, from the same version."""
    lake = Lake(root)
    original = lake.open

    def open_then_wait(name: str):
        handle = original(name)
        barrier.wait(timeout=60)
        return handle

    lake.open = open_then_wait  # type: ignore[method-assign]
    try:
        results.put(("won", put(lake, seed)))
    except CommitConflict:
        results.put(("lost", ""))


def test_of_two_writers_one_wins_and_the_others_files_are_vacuumed(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    barrier, results = SPAWN.Barrier(2), SPAWN.Queue()
    racers = [SPAWN.Process(target=race, args=(tmp_path, s, barrier, results)) for s in (1, 2)]
    for racer in racers:
        racer.start()
    found = dict(results.get(timeout=120) for _ in racers)
    for racer in racers:
        racer.join()
    assert set(found) == {"won", "lost"}
    assert lake.artifact(TABLE.name, FIRST).digest == found["won"]
    assert len(list(Path(lake.path(TABLE.name)).rglob("ds=*/*/*.parquet"))) == 6
    tidy(lake, TABLE.name, orphan_hours=0)
    live = set(lake.files(TABLE.name, FIRST))
    assert {str(p) for p in Path(lake.path(TABLE.name)).rglob("ds=*/*/*.parquet")} == live


def die_before_commit(root: Path) -> None:
    lake = Lake(root)
    lake.commit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    put(lake, 1)


def test_a_crash_before_the_commit_is_invisible_and_a_rerun_completes(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    before = put(lake, 0)
    victim = SPAWN.Process(target=die_before_commit, args=(tmp_path,))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert len(list(Path(lake.path(TABLE.name)).rglob("ds=*/*/*.parquet"))) == 4
    assert lake.artifact(TABLE.name, FIRST).digest == before
    after = put(lake, 1)
    assert lake.artifact(TABLE.name, FIRST).digest == after != before


def test_an_empty_day_replaces_a_full_one(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    empty = random_day(0, FIRST, "user").slice(0, 0)
    commit_raw(lake, "ctr", "user", FIRST, empty, buckets=2, dim=8)
    assert len(lake.read(TABLE, FIRST)) == 0
    assert lake.days(TABLE.name) == (FIRST,)


def test_dropped_days_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    lake, later = Lake(tmp_path), shift_day(FIRST, 1)
    put(lake, 0)
    kept = put(lake, 1, later)
    drop_days(lake, TABLE.name, [FIRST])
    tidy(lake, TABLE.name, orphan_hours=0)
    assert lake.days(TABLE.name) == (later,)
    assert lake.artifact(TABLE.name, later).digest == kept
    with pytest.raises(MissingInput, match=f"no day {FIRST}"):
        lake.read(TABLE, FIRST)


def test_tidying_changes_no_content(tmp_path: Path) -> None:
    lake, events = Lake(tmp_path), SPEC.events_table()
    days = (FIRST, shift_day(FIRST, 1))
    for seed in (0, 1):
        for ds in days:
            put(lake, seed, ds)
            commit_events(lake, ds, random_day(seed, ds, "user"), random_day(seed, ds, "pin"))
    for name, superseded in ((TABLE.name, 2 * len(days)), (events.name, len(days))):
        before = [lake.artifact(name, ds) for ds in days]
        assert tidy(lake, name, orphan_hours=1) == 0
        assert tidy(lake, name, orphan_hours=0) == superseded
        assert [lake.artifact(name, ds) for ds in days] == before
        assert (Path(lake.path(name)) / "_delta_log" / "_last_checkpoint").exists()


@pytest.mark.parametrize("wrong", ["bucket", "day", "file", "layout"])
def test_a_commit_checks_what_delta_does_not(tmp_path: Path, wrong: str) -> None:
    lake = Lake(tmp_path)
    bucket = 7 if wrong == "bucket" else 0
    day = shift_day(FIRST, 1) if wrong == "day" else FIRST
    staged = stage_file(lake.root, TABLE, day, random_day(0, FIRST, "user"), bucket=bucket)
    if wrong == "file":
        Path(lake.path(TABLE.name), staged.path).unlink()
    properties = {} if wrong == "layout" else LAYOUT
    with pytest.raises(ContractViolation):
        lake.commit(TABLE, FIRST, [staged], properties=properties)
    assert not lake.exists(TABLE.name)


def test_nulls_where_none_are_allowed_are_not_staged(tmp_path: Path) -> None:
    rows = random_day(0, FIRST, "user")
    nulls = pa.nulls(len(rows), pa.string())
    rows = rows.set_column(1, rows.schema.field("event_id"), nulls)
    with pytest.raises(ContractViolation, match="event_id"):
        stage_file(Lake(tmp_path).root, TABLE, FIRST, rows, bucket=0)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    file = Path(lake.files(TABLE.name, FIRST)[0])
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match=file.name):
        lake.read(TABLE, FIRST)


@pytest.mark.parametrize("reader", ["read", "dataset", "bucket"])
@pytest.mark.parametrize("tamper", ["flip", "swap", "delete"])
def test_a_file_that_is_not_what_its_name_says_is_not_read(
    tamper: str, reader: str, tmp_path: Path
) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    put(lake, 1, ds=shift_day(FIRST, 1))
    file, other = (Path(lake.files(TABLE.name, ds)[0]) for ds in (FIRST, shift_day(FIRST, 1)))
    if tamper == "flip":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif tamper == "swap":
        held = file.read_bytes()
        file.write_bytes(other.read_bytes())
        other.write_bytes(held)
    else:
        file.unlink()
    readers = {
        "read": lambda: lake.read(TABLE, FIRST),
        "bucket": lambda: lake.read(TABLE, FIRST, bucket=0),
        "dataset": lambda: lake.dataset(TABLE, [FIRST]),
    }
    with pytest.raises(MissingInput if tamper == "delete" else DamagedFile, match=file.name):
        readers[reader]()


def test_a_file_of_another_program_is_no_digest(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    rows = lake.open(TABLE.name).to_pyarrow_table().filter(pc.field("ds") == FIRST)
    write_deltalake(lake.path(TABLE.name), rows, mode="overwrite", predicate=f"ds = '{FIRST}'")
    with pytest.raises(ContractViolation, match="was not written by derm"):
        lake.artifact(TABLE.name, FIRST)
    with pytest.raises(ContractViolation, match="was not written by derm"):
        lake.read(TABLE, FIRST)


def test_files_that_are_gone_or_cut_are_absent(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put(lake, 0)
    first, second, *_ = lake.files(TABLE.name, FIRST)
    assert lake.absent(TABLE.name, FIRST) == ()
    Path(first).unlink()
    Path(second).write_bytes(Path(second).read_bytes()[:-1])
    assert lake.absent(TABLE.name, FIRST) == (first, second)


def test_a_digest_depends_on_rows_and_not_on_chunks() -> None:
    rows = random_day(0, FIRST, "user")
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 0), rows.slice(7)])
    assert rows_digest(pieces) == rows_digest(rows)
    assert rows_digest(rows.slice(1)) != rows_digest(rows)
    assert rows_digest(rows.take(pa.array([1, 0, *range(2, len(rows))]))) != rows_digest(rows)
    lists = pa.table({"x": pa.array([["a"], None, ["b", "c"]], pa.list_(pa.string()))})
    other = pa.table({"x": pa.array([["a", "b"], None, ["c"]], pa.list_(pa.string()))})
    assert rows_digest(lists) != rows_digest(other)
