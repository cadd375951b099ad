"""A row that arrives after its day: in its day while that is open, in quarantine afterwards."""

import datetime as dt
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.lake.lake import Lake
from jobs.cli import main
from jobs.engine.manifests import ManifestStore
from tests.brief_recipe import BRIEF
from tests.broken_tables import first_late, first_rows
from tests.data_fixtures import Home

FIRST, SECOND = "2025-03-01", "2025-03-02"
LATE = dt.datetime(2025, 3, 1, 23, 59, 59, 999999, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two simulated days; the first is ingested, a row of it comes with the second."""
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERM_HOME", str(path))
        assert main(["init", "--dataset", "simulated", "--recipe", BRIEF]) == 0
        for ds in (FIRST, SECOND):
            assert main(["simulate", "--ds", ds]) == 0
        assert main(["ingest", "--ds", FIRST]) == 0
    delivered = pq.read_table(source(path), partitioning=None)
    known = [pc.is_in(delivered[k], snapshot(path, k)) for k in ("user_id", "pin_id")]
    order = pc.sort_indices(pc.invert(pc.and_(*known)))
    pq.write_table(first_rows("ts", LATE)(delivered.take(order)), source(path))
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


def source(home: Path) -> Path:
    return home / "source" / "simulated" / f"ds={SECOND}" / "events.parquet"


def snapshot(home: Path, key: str) -> pa.Array:
    files = Lake(home / "lake").files(f"{key.removesuffix('_id')}s", FIRST)
    return pq.read_table(files[0], columns=[key], partitioning=None)[key].combine_chunks()


def late_ids(home: Home) -> list[str]:
    rows = pq.read_table(source(home.path), partitioning=None)
    return rows.filter(pc.equal(rows["ts"], pa.scalar(LATE)))["event_id"].to_pylist()


def ids(home: Home, table: str, ds: str) -> list[str]:
    files = Lake(home.path / "lake").files(table, ds)
    return pq.read_table(files[0], columns=["event_id"], partitioning=None)["event_id"].to_pylist()


def digest(home: Home, ds: str) -> str:
    """What the manifest of the day's ingestion says of its events; the lake must agree."""
    manifest = ManifestStore(home.path / "manifests").get("ingest", ds, None)
    assert manifest
    recorded = manifest.output("lake:events").digest
    assert recorded == Lake(home.path / "lake").artifact("events", ds).digest
    return recorded


def test_an_open_day_takes_it_in(home: Home) -> None:
    before = digest(home, FIRST)
    (late,) = late_ids(home)
    assert home.derm("ingest", "--ds", SECOND).code == 0
    after = digest(home, FIRST)
    assert after != before
    assert ids(home, "events", FIRST).count(late) == 1
    assert late not in ids(home, "events", SECOND)
    assert json.loads(home.derm("status", "--json").out)["quarantined_rows"] == 0
    # Once the day is closed the row stays, whatever is read again.
    assert home.derm("validate", "--ds", FIRST).code == 0
    for ds in (SECOND, FIRST):
        assert home.derm("ingest", "--ds", ds, "--force").code == 0
    assert digest(home, FIRST) == after
    assert home.derm("validate", "--ds", FIRST).out.endswith("up to date\n")


def test_after_its_day_was_validated_it_is_counted_in_quarantine(home: Home) -> None:
    assert home.derm("validate", "--ds", FIRST).code == 0
    before = digest(home, FIRST)
    (late,) = late_ids(home)
    for force in ((), ("--force",)):
        result = home.derm("ingest", "--ds", SECOND, *force)
        assert "late=0  quarantined=1" in result.out
        assert digest(home, FIRST) == before
        assert late not in ids(home, "events", SECOND)
        assert ids(home, "quarantine", SECOND) == [late]
    assert json.loads(home.derm("status", "--json").out)["quarantined_rows"] == 1


def test_one_that_its_day_cannot_take_refuses_the_delivery(home: Home) -> None:
    rows = pq.read_table(source(home.path), partitioning=None)
    pq.write_table(first_rows("user_id", "nobody")(rows), source(home.path))
    before = digest(home, FIRST)
    result = home.derm("ingest", "--ds", SECOND)
    assert result.code == 2
    assert "every user of the events in users; found 1 of 1 rows: 'nobody'" in result.err
    assert digest(home, FIRST) == before
    assert not Lake(home.path / "lake").exists("late")


def test_a_label_whose_impression_nobody_knows_is_kept_in_quarantine(home: Home) -> None:
    rows = first_late("impression_id", "e0000-999999999")(
        pq.read_table(source(home.path), partitioning=None)
    )
    pq.write_table(rows, source(home.path))
    (stray,) = rows.filter(pc.equal(rows["impression_id"], "e0000-999999999"))["event_id"]
    result = home.derm("ingest", "--ds", SECOND)
    assert "quarantined=1" in result.out
    assert stray.as_py() not in ids(home, "events", SECOND)
    kept = Lake(home.path / "lake").files("quarantine", SECOND)
    table = pq.read_table(kept[0], partitioning=None)
    assert table["event_id"].to_pylist() == [stray.as_py()]
    assert table["reason"].to_pylist() == [f"its impression of {FIRST} is not in events"]
