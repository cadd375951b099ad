"""Pools as a notebook reads them: whole, in part, joined as of the day before, and exported."""

import argparse
import datetime as dt
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.client import offline
from feature_store.contracts.base import Entity
from feature_store.contracts.errors import ContractViolation, InputError, MissingInput
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.schemas import arrow_schema, pack
from jobs.commands import export as exporting
from jobs.settings import Home, Settings
from tests.architecture.sources import ROOT

DAYS = ("2025-03-01", "2025-03-02", "2025-03-03")
DIM, BUCKETS, USERS = 4, 3, 50


def vector(user: int, day: int) -> np.ndarray:
    """The vector of a user at the end of a day; the test's own truth."""
    return np.array([user, day, user * day, 1], np.float32)


def known(user: int, day: int) -> bool:
    return user % 5 != day


def write(
    lake: Lake,
    upstream: str,
    day: int,
    *,
    dtype: str = "float32",
    space: str = "s1",
    users: Iterable[int] = range(USERS),
    entity: Entity = "user",
) -> None:
    table = pool_table(upstream, entity)
    users = [u for u in users if known(u, day)]
    ids = pa.array([f"u{u}" for u in users], pa.string())
    buckets, staged = bucket_of(ids, BUCKETS), []
    for bucket in range(BUCKETS):
        mine = sorted(np.array(users, int)[buckets == bucket].tolist(), key=lambda u: f"u{u}")
        vectors = np.array([vector(u, day) for u in mine], dtype).reshape(-1, DIM)
        columns = {
            "entity_id": pa.array([f"u{u}" for u in mine], pa.string()),
            "embedding": pack(vectors),
            "last_daily": pa.array([DAYS[day]] * len(mine), pa.string()),
            "last_active": pa.array([DAYS[day]] * len(mine), pa.string()),
            "updates": pa.array([1] * len(mine), pa.int32()),
            "previous_daily": pa.nulls(len(mine), pa.binary()),
            "space_id": pa.array([space] * len(mine), pa.string()),
        }
        data = pa.table(columns, schema=arrow_schema(table))
        staged.append(stage_file(lake.root, table, DAYS[day], data, bucket=bucket))
    properties = {"dtype": dtype, "dim": str(DIM), "buckets": str(BUCKETS)}
    lake.commit(table, DAYS[day], staged, properties=properties)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    for day in range(len(DAYS)):
        write(lake, "ctr", day)
    return lake


@pytest.fixture
def source(lake: Lake) -> str:
    return str(lake.root)


def examples(*rows: tuple[str | None, str]) -> pa.Table:
    """Examples of (user, time)."""
    times = [dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC) for _, time in rows]
    ids = pa.array([user for user, _ in rows], pa.string())
    return pa.table({"user_id": ids, "ts": pa.array(times, pa.timestamp("us", tz="UTC"))})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_pool_is_a_table_of_vectors(lake: Lake, source: str, dtype: str) -> None:
    write(lake, "cvr", 1, dtype=dtype)
    table = offline.embeddings(source, "cvr", "user", DAYS[1])
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    users = [int(i[1:]) for i in table["entity_id"].to_pylist()]
    assert sorted(users) == [u for u in range(USERS) if known(u, 1)]
    stored = np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(stored, np.stack([vector(u, 1) for u in users]))
    assert set(table["space_id"].to_pylist()) == {"s1"}


def test_floats_are_a_view_of_the_file_that_was_read(source: str) -> None:
    batch = next(offline.batches(source, "ctr", "user", DAYS[0]))
    vectors = batch.column("embedding").flatten().to_numpy(zero_copy_only=True)
    assert not vectors.flags.owndata


def test_some_ids_of_a_pool(source: str) -> None:
    table = offline.embeddings(source, "ctr", "user", DAYS[0], ["u7", "u3", "nosuch", "u3"])
    assert sorted(table["entity_id"].to_pylist()) == ["u3", "u7"]
    assert table.schema == offline.embeddings(source, "ctr", "user", DAYS[0]).schema
    nobody = offline.embeddings(source, "ctr", "user", DAYS[0], ["nosuch"])
    assert (len(nobody), nobody.schema) == (0, table.schema)


def test_examples_get_the_vectors_of_the_day_before(source: str) -> None:
    rows = [
        (f"u{u}", f"{ds}T{hour:02}:30:00") for u in range(9) for ds in DAYS[1:] for hour in (0, 23)
    ]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    given = examples(*rows)
    joined = offline.as_of(source, given, ["ctr"], entities=["user"]).read_all()
    assert joined.drop_columns(["ctr_user_vector", "ctr_user_found"]).equals(given)
    got, found = (joined[f"ctr_user_{name}"].to_pylist() for name in ("vector", "found"))
    for (user, time), vector_D, is_found in zip(rows, got, found, strict=True):
        number, before = int(user[1:]), DAYS.index(time[:10]) - 1
        assert is_found == known(number, before)
        expected = vector(number, before) if is_found else np.zeros(DIM)
        np.testing.assert_array_equal(vector_D, expected)


@pytest.mark.parametrize("batch_bytes", [1, 64, 4096])
def test_the_size_of_a_batch_changes_nothing_but_memory(source: str, batch_bytes: int) -> None:
    given = examples(*[(f"u{u}", f"{DAYS[1 + u % 2]}T12:00:00") for u in range(40)])
    small = offline.as_of(source, given, ["ctr"], entities=["user"], batch_bytes=batch_bytes)
    rows = [len(batch) for batch in small]
    assert max(rows) == max(batch_bytes // (4 * DIM), 1) if batch_bytes < 640 else sum(rows) == 40
    again = offline.as_of(source, given, ["ctr"], entities=["user"], batch_bytes=batch_bytes)
    whole = offline.as_of(source, given, ["ctr"], entities=["user"])
    assert again.read_all().equals(whole.read_all())


@pytest.mark.parametrize("time", ["date", "text", "zone"])
def test_a_day_may_be_said_in_three_ways(source: str, time: str) -> None:
    given = examples(("u1", f"{DAYS[1]}T23:59:59"), ("u2", f"{DAYS[2]}T00:00:00"))
    kinds = {
        "date": given["ts"].cast(pa.date32()),
        "text": pc.strftime(given["ts"], "%Y-%m-%d"),
        "zone": given["ts"].cast(pa.timestamp("us", tz="Pacific/Auckland")),
    }
    other = given.set_column(1, "ts", kinds[time])
    expected = offline.as_of(source, given, ["ctr"], entities=["user"]).read_all()
    joined = offline.as_of(source, other, ["ctr"], entities=["user"]).read_all()
    assert joined["ctr_user_vector"].equals(expected["ctr_user_vector"])


def test_a_row_of_nobody_finds_nobody(source: str) -> None:
    given = examples((None, f"{DAYS[1]}T12:00:00"), ("u1", f"{DAYS[1]}T12:00:00"))
    joined = offline.as_of(source, given, ["ctr"], entities=["user"]).read_all()
    assert joined["ctr_user_found"].to_pylist() == [False, True]


def test_no_examples_are_no_rows(source: str) -> None:
    joined = offline.as_of(source, examples().slice(0, 0), ["ctr"], entities=["user"]).read_all()
    assert len(joined) == 0
    assert joined.schema.field("ctr_user_vector").type == pa.list_(pa.float32(), DIM)


def test_the_future_is_refused(source: str) -> None:
    given = examples(("u7", f"{DAYS[1]}T12:00:00"))
    with pytest.raises(InputError, match="reads the future"):
        offline.as_of(source, given, ["ctr"], entities=["user"], lag_days=0)
    leak = offline.as_of(source, given, ["ctr"], entities=["user"], lag_days=0, same_day=True)
    assert leak.read_all()["ctr_user_vector"].to_pylist() == [vector(7, 1).tolist()]


def test_a_day_without_a_pool_is_an_error_not_an_older_pool(source: str) -> None:
    late = examples(("u1", "2025-03-05T12:00:00"))
    with pytest.raises(MissingInput, match="need the pool of 2025-03-04"):
        offline.as_of(source, late, ["ctr"], entities=["user"]).read_all()
    early = examples(("u1", f"{DAYS[0]}T12:00:00"), ("u1", f"{DAYS[1]}T12:00:00"))
    with pytest.raises(MissingInput, match="need the pool of 2025-02-28"):
        offline.as_of(source, early, ["ctr"], entities=["user"]).read_all()
    through = offline.as_of(source, early, ["ctr"], entities=["user"], unknown_days=True)
    assert through.read_all()["ctr_user_found"].to_pylist() == [False, True]


def test_two_spaces_are_never_joined_together(lake: Lake, source: str) -> None:
    write(lake, "ctr", 2, space="s2")
    given = examples(("u3", f"{DAYS[2]}T12:00:00"), ("u3", "2025-03-04T12:00:00"))
    with pytest.raises(ContractViolation, match="two embedding spaces"):
        offline.as_of(source, given, ["ctr"], entities=["user"]).read_all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pa.table({"ts": pa.array([], pa.timestamp("us", tz="UTC"))}), "no column user_id"),
        (pa.table({"user_id": pa.array([], pa.string())}), "no column ts"),
        (
            pa.table({"user_id": ["u1"], "ts": pa.array([0], pa.timestamp("us"))}),
            "says no day",
        ),
        (
            pa.table({"user_id": ["u1"], "ts": ["2025-03-02"], "ctr_user_found": [True]}),
            "already have the columns ctr_user_found",
        ),
    ],
)
def test_examples_that_cannot_be_joined(source: str, given: pa.Table, message: str) -> None:
    with pytest.raises(InputError, match=message):
        offline.as_of(source, given, ["ctr"], entities=["user"])


def test_texts_that_are_no_days(source: str) -> None:
    given = pa.table({"user_id": ["u1"], "ts": ["yesterday"]})
    with pytest.raises(InputError, match="holds no days"):
        offline.as_of(source, given, ["ctr"], entities=["user"]).read_all()


def test_a_source_that_is_none(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match="there is no lake"):
        offline.days(tmp_path / "nowhere", "ctr", "user")
    assert offline.days(source, "ctr", "user") == DAYS
    assert offline.days(source, "nosuch", "user") == ()
    with pytest.raises(MissingInput, match="does not exist"):
        offline.embeddings(source, "nosuch", "user", DAYS[0])
    with pytest.raises(InputError, match="releases are recorded in a home"):
        offline.releases(source)


def export(lake: Lake, tmp_path: Path, kind: str, *words: str) -> tuple[int, Path]:
    home, folder = tmp_path / "home", tmp_path / kind
    if not home.exists():
        Home(dataset="simulated", recipe="toy", first_ds=DAYS[0], start_ds=DAYS[0]).save(home)
        (home / "lake").symlink_to(str(lake.root))
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    exporting.configure(parser)
    args = parser.parse_args(["--format", kind, "--ds", DAYS[1], "--out", str(folder), *words])
    return exporting.main(args, Settings(home=home)), folder


@pytest.mark.parametrize("kind", ["parquet", "npy", "projector"])
def test_an_export_holds_the_pool(
    lake: Lake, source: str, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = export(lake, tmp_path, kind, "--json")
    pool = offline.embeddings(source, "ctr", "user", DAYS[1])
    ids = pool["entity_id"].to_pylist()
    vectors = np.array(pool["embedding"].to_pylist(), np.float32)
    if kind == "parquet":
        written = pq.read_table(folder / "embeddings.parquet")
        assert written.equals(pool)
    elif kind == "npy":
        np.testing.assert_array_equal(np.load(folder / "embeddings.npy"), vectors)
        assert (folder / "ids.txt").read_text().splitlines() == ids
    else:
        [tensor] = json.loads((folder / "projector_config.json").read_text())["embeddings"]
        assert tensor["tensorShape"] == list(vectors.shape)
        read = np.loadtxt(folder / tensor["tensorPath"], np.float32, delimiter="\t")
        np.testing.assert_array_equal(read, vectors)
        lines = (folder / tensor["metadataPath"]).read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["entity_id", *ids]
    said = json.loads(capsys.readouterr().out)
    assert (code, said["rows"]) == (0, len(ids))
    assert said["files"] == sorted(p.name for p in folder.iterdir())


def test_an_export_overwrites_nothing_and_leaves_no_half(lake: Lake, tmp_path: Path) -> None:
    export(lake, tmp_path, "npy")
    with pytest.raises(InputError, match="is there already"):
        export(lake, tmp_path, "npy")
    first, *_ = lake.files(pool_table("ctr", "user").name, DAYS[1])
    Path(first).unlink()
    with pytest.raises(MissingInput):
        export(lake, tmp_path, "parquet")
    assert not list(tmp_path.glob("*parquet*"))


@pytest.mark.parametrize("kind", ["parquet", "npy", "projector"])
def test_an_empty_pool_is_exported_too(lake: Lake, tmp_path: Path, kind: str) -> None:
    write(lake, "ctr", 1, users=())
    code, folder = export(lake, tmp_path, kind)
    assert code == 0
    if kind == "npy":
        assert np.load(folder / "embeddings.npy").shape == (0, DIM)


def test_the_page_runs_as_it_stands(lake: Lake, source: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    Home(dataset="simulated", recipe="toy", first_ds=DAYS[0], start_ds=DAYS[0]).save(home)
    (home / "lake").symlink_to(source)
    for day in range(len(DAYS)):
        write(lake, "ctr", day, entity="pin")
    random = np.random.default_rng(0)
    given = examples(*[(f"u{u}", f"{DAYS[1 + u % 2]}T12:00:00") for u in range(40)])
    given = given.append_column("pin_id", pa.array([f"u{p}" for p in random.integers(0, 50, 40)]))
    given = given.append_column("click", pa.array(random.random(40) < 0.5))
    pq.write_table(given, tmp_path / "examples.parquet")
    page = (ROOT / "docs" / "howto" / "notebook.md").read_text()
    names = {"HOME": str(home), "DAY": DAYS[1], "EXAMPLES": tmp_path / "examples.parquet"}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)  # noqa: S102 - the page is what is tested
    assert sorted(names["some"]["entity_id"].to_pylist()) == ["u2"]
    said = re.search(r"^# (\[.*\])$", page, re.MULTILINE)
    assert said
    assert names["training"].column_names[-4:] == json.loads(said[1].replace("'", '"'))
    norms = [np.linalg.norm(vector(u, 1)) for u in range(USERS) if known(u, 1)]
    assert names["mean_norm"] == pytest.approx(np.mean(norms))
    assert len(names["scores"]) == 40
