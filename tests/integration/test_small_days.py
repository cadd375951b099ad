"""Small and sparse data up to a release: every data set, and days of next to nothing."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.tables import pool_table, raw_table
from feature_store.lake.lake import Lake, sort_rows
from feature_store.online.store import open_store
from jobs.engine.manifests import ManifestStore
from jobs.recipes import Recipe
from jobs.rendering.published import read_published
from tests import reference_pool
from tests.brief_recipe import BRIEF
from tests.data_fixtures import Home, real_data
from tests.source_files import WRITERS

pytestmark = pytest.mark.integration

DAYS = days_between("2025-06-01", "2025-06-07")
DECLARATION = """
name = "club"
first_day = "2025-06-01"
history_days = 1
daily_rows = [1, 500]
label_rates = {clicked = [0.05, 0.8]}

[guards]
min_effective_rank = 1.1

[events]
path = "events/{ds}.parquet"
event_id = "id"
user_id = "member"
pin_id = "offer"
ts = "time"

[users]
path = "members.parquet"
id = "member"

[pins]
path = "offers.parquet"
id = "offer"

[[labels]]
name = "clicked"
upstream = "ctr"
role = "primary"
meaning = "clicked"

[[labels]]
name = "bought"
upstream = "cvr"
role = "primary"
meaning = "bought"

[[features]]
name = "town"
scope = "user"
kind = "categorical"
meaning = "town"

[[features]]
name = "price"
scope = "pin"
kind = "numeric"
meaning = "price"
"""


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    monkeypatch.setenv("DERM_REDIS_URL", f"file://{tmp_path}/store")
    return Home(tmp_path / "home", monkeypatch, capsys)


def club(folder: Path, declaration: str = DECLARATION) -> str:
    """A club of 30 members with one quiet and one empty day; the path of its declaration."""
    folder.mkdir()
    for number, ds in enumerate(DAYS):
        deliver(folder, ds, rows={3: 0, 4: 5}.get(number, 60), members={4: 1}.get(number, 30))
    members = {"member": [f"m{i}" for i in range(30)], "town": ["Oslo", "Bergen", "Bodø"] * 10}
    pd.DataFrame(members).to_parquet(folder / "members.parquet")
    offers = {"offer": [f"o{i}" for i in range(8)], "price": np.arange(8.0)}
    pd.DataFrame(offers).to_parquet(folder / "offers.parquet")
    path = folder / "club.toml"
    path.write_text(declaration)
    return str(path)


def deliver(folder: Path, ds: str, *, rows: int, members: int, late: str | None = None) -> None:
    """The events of a day; with `late`, three of them are of that earlier day."""
    random = np.random.default_rng(int(ds.replace("-", "")) + rows)
    start = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
    who, what = random.integers(0, members, rows), random.integers(0, 8, rows)
    clicked = random.random(rows) < np.where(who % 4 == what % 4, 0.6, 0.2)
    times = start + pd.to_timedelta(random.integers(0, 86_400, rows), unit="s")
    events = pd.DataFrame(
        {
            "id": [f"{ds}/{i}" for i in range(rows)],
            "member": [f"m{i}" for i in who],
            "offer": [f"o{i}" for i in what],
            "time": pd.Series(times).astype("datetime64[us, UTC]"),
            "clicked": clicked.astype(np.int8),
            "bought": (clicked & (random.random(rows) < 0.5)).astype(np.int8),
        }
    )
    if late:
        back = pd.Timestamp(late, tz="UTC") + pd.Timedelta(hours=5)
        events.loc[:2, "time"] = back
    (folder / "events").mkdir(exist_ok=True)
    events.to_parquet(folder / "events" / f"{ds}.parquet")


def start(home: Home, *init: str) -> None:
    home.must("init", "--recipe", BRIEF, *init)
    declared = json.loads((home.path / "home.json").read_text())
    if declared["first_ds"] < declared["start_ds"]:
        last = shift_day(declared["start_ds"], -1)
        home.must("run", "--from", declared["first_ds"], "--to", last)


def released(home: Home) -> str:
    published = read_published(home.path)
    return published.release.ds if published else ""


def check_pools(home: Home, first: str, last: str) -> None:
    """Every pool is the plain recursion over the raw embeddings, bit for bit."""
    lake, config = Lake(home.path / "lake"), Recipe(name="toy").aggregation
    for upstream in ("ctr", "cvr"):
        for entity in ENTITIES:
            expected: dict[str, reference_pool.State] = {}
            for ds in days_between(first, last):
                daily = reference_pool.last_of_day(lake.read(raw_table(upstream, entity), ds))
                expected = reference_pool.step(expected, daily, ds, config)
                pool = sort_rows(lake.read(pool_table(upstream, entity), ds), ["entity_id"])
                rows = reference_pool.as_rows(expected, config)
                assert reference_pool.table_rows(pool) == rows, (upstream, entity, ds)


def test_a_club_with_an_empty_day_a_day_of_one_member_and_a_late_file(
    home: Home, tmp_path: Path
) -> None:
    start(home, "--dataset", club(tmp_path / "club"))
    home.must("run", "--from", DAYS[1], "--to", DAYS[2])
    refused = home.derm("run", "--from", DAYS[3], "--to", DAYS[3])
    assert refused.code == 2
    assert f"derm skip --ds {DAYS[3]}" in refused.err
    assert 'empty_days = "carry"' in refused.err
    assert home.derm("skip", "--ds", DAYS[3], "--reason", "closed for repairs").code == 0
    home.must("run", "--from", DAYS[3], "--to", DAYS[4])
    assert released(home) == DAYS[4]
    deliver(tmp_path / "club", DAYS[5], rows=40, members=30, late=DAYS[4])
    home.must("run", "--from", DAYS[5], "--to", DAYS[5])
    check_pools(home, DAYS[1], DAYS[5])
    manifests = ManifestStore(home.path / "manifests")
    ingested = manifests.get("ingest", DAYS[3], None)
    assert ingested
    assert ingested.metrics["no_events"] == "skipped: closed for repairs"
    assert ingested.inputs[0].uri == f"skipped/{DAYS[3]}.json"
    models = [manifests.get("train", ds, "ctr") for ds in DAYS[2:4]]
    assert len({m.outputs[0].digest for m in models if m}) == 1
    merged = manifests.get("merge", DAYS[3], "ctr")
    assert merged
    assert merged.metrics["num_carried_user"] == merged.metrics["num_pool_user"]
    late = manifests.get("ingest", DAYS[5], None)
    assert late
    assert late.metrics["quarantined"] == 3
    store = open_store(f"file://{tmp_path}/store", Recipe(name="toy").publishing)
    published = read_published(home.path)
    assert published
    prefix = published.release.upstreams[0].users_prefix
    assert sum(v is not None for v in store.read(prefix, [f"m{i}" for i in range(30)])) > 20
    status = json.loads(home.derm("status", "--days", "9", "--json").out)
    notes = {day["ds"]: day["notes"] for day in status["days"]}
    assert notes[DAYS[3]] == ["no events: skipped: closed for repairs"]
    assert "closed for repairs" in (home.path / "report" / "index.html").read_text()
    assert all(day["complete"] for day in status["days"])


def test_declared_empty_days_are_carried_and_other_repairs_are_noticed(
    home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "club"
    start(home, "--dataset", club(folder, 'empty_days = "carry"\n' + DECLARATION))
    # A first day on which every fifth event is missing, and half of those who came bought.
    home.must("run", "--from", DAYS[1], "--to", DAYS[3])
    assert released(home) == DAYS[3]
    check_pools(home, DAYS[1], DAYS[3])
    missing = folder / "events" / f"{DAYS[4]}.parquet"
    missing.rename(folder / "later.parquet")
    refused = home.derm("run", "--from", DAYS[4], "--to", DAYS[4])
    assert refused.code == 2
    assert f"derm skip --ds {DAYS[4]}" in refused.err
    (folder / "later.parquet").rename(missing)
    # A member who clicks everything: the rates of the day are not what the declaration allows.
    deliver(folder, DAYS[4], rows=200, members=30)
    events = pd.read_parquet(missing)
    events.assign(clicked=np.int8(1)).to_parquet(missing)
    assert home.derm("run", "--from", DAYS[4], "--to", DAYS[4]).code == 3
    events.to_parquet(missing)
    again = home.derm("run", "--from", DAYS[4], "--to", DAYS[4])
    assert again.code == 0, again.err
    assert f"{DAYS[4]} ingest: done" in again.out
    unchanged = home.derm("run", "--from", DAYS[4], "--to", DAYS[4], "--steps", "ingest")
    assert f"{DAYS[4]} ingest: up to date" in unchanged.out
    # Members who are delivered anew belong to the days to come: yesterday stays as it is.
    pd.read_parquet(folder / "members.parquet").iloc[:29].to_parquet(folder / "members.parquet")
    unchanged = home.derm("run", "--from", DAYS[4], "--to", DAYS[4], "--steps", "ingest")
    assert f"{DAYS[4]} ingest: up to date" in unchanged.out
    deliver(folder, DAYS[4], rows=61, members=29)
    day = json.loads(home.derm("status", "--json").out)["days"][-1]
    assert day["first_open"] == {"step": "ingest", "upstream": None}


def test_a_day_that_was_skipped_too_early(home: Home, tmp_path: Path) -> None:
    start(home, "--dataset", club(tmp_path / "club"))
    home.must("run", "--from", DAYS[1], "--to", DAYS[1])
    closed = home.derm("skip", "--ds", DAYS[1], "--reason", "x")
    assert closed.code == 2
    assert "derm backfill" in closed.err
    assert home.derm("skip", "--ds", "2025-05-01", "--reason", "x").code == 2
    assert home.derm("skip", "--ds", DAYS[2], "--reason", " ").code == 2
    assert home.derm("skip", "--ds", DAYS[2], "--undo").code == 2
    home.must("skip", "--ds", DAYS[2], "--reason", "no file by noon")
    home.must("run", "--from", DAYS[2], "--to", DAYS[2])
    undone = home.derm("skip", "--ds", DAYS[2], "--undo")
    assert f"derm backfill --from {DAYS[2]} --to {DAYS[2]} --what features" in undone.out
    gate = home.derm("run", "--from", DAYS[5], "--to", DAYS[5])
    assert gate.code != 0
    repair = ("backfill", "--from", DAYS[2], "--to", DAYS[2], "--what", "features")
    home.must(*repair, "--yes", "--in-process")
    manifest = ManifestStore(home.path / "manifests").get("ingest", DAYS[2], None)
    assert manifest
    assert manifest.metrics["events"] == 60
    check_pools(home, DAYS[1], DAYS[2])


def test_the_history_is_not_trained_on(home: Home, tmp_path: Path) -> None:
    home.must("init", "--dataset", club(tmp_path / "club"))
    result = home.derm("run", "--from", DAYS[0], "--to", DAYS[0])
    assert result.code == 0
    steps = {m.step for m in ManifestStore(home.path / "manifests").of_day(DAYS[0])}
    assert steps == {"ingest", "validate", "count"}
    for argv in (
        ("run", "--from", DAYS[0], "--to", DAYS[0], "--steps", "train"),
        ("train", "--ds", DAYS[0]),
    ):
        refused = home.derm(*argv)
        assert refused.code == 2
        assert "day of the history" in refused.err


def test_nothing_can_begin_with_a_day_without_events(home: Home, tmp_path: Path) -> None:
    declaration = club(tmp_path / "club", 'empty_days = "carry"\n' + DECLARATION)
    start(home, "--dataset", declaration, "--first", DAYS[2], "--start", DAYS[3])
    refused = home.derm("run", "--from", DAYS[3], "--to", DAYS[3])
    assert refused.code == 2
    assert "no model before it" in refused.err


@pytest.mark.parametrize(
    ("dataset", "history", "rows"),
    [("movielens", 3, 300), ("kuairand", 2, 1200), ("trivago", 0, 60)],
)
def test_made_up_days_of_every_data_set(
    home: Home, tmp_path: Path, dataset: str, history: int, rows: int
) -> None:
    first = {"movielens": "1997-11-05", "kuairand": "2022-04-08", "trivago": "2018-11-07"}[dataset]
    days = days_between(first, shift_day(first, history + 1))
    source = tmp_path / "source"
    source.mkdir()
    WRITERS[dataset](source, dict.fromkeys(days, rows))
    start(home, "--dataset", dataset, "--source", str(source), "--days", str(history))
    for ds in days[history:]:
        run = home.derm("run", "--from", ds, "--to", ds)
        if dataset == "trivago":
            # 1,500 events where the data set declares 50,000: somebody has to look.
            assert run.code == 3
            accept = ("accept", "--ds", ds, "--guard", "validate.daily_rows", "--reason", "a test")
            home.must(*accept)
            run = home.derm("run", "--from", ds, "--to", ds)
        assert run.code == 0, run.err
        assert released(home) == ds
    check_pools(home, days[history], days[-1])
    if dataset == "trivago":
        status = json.loads(home.derm("status", "--json").out)
        accepted = "accepted validate.daily_rows 1500, bound 5e+04: a test"
        assert accepted in status["days"][0]["notes"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "day"), [("movielens", "1997-11-12"), ("kuairand", "2022-04-15")]
)
def test_two_real_days(home: Home, dataset: str, day: str) -> None:
    start(home, "--dataset", dataset, "--source", str(real_data(dataset)))
    home.must("run", "--from", day, "--to", shift_day(day, 1))
    assert released(home) == shift_day(day, 1)
    check_pools(home, day, shift_day(day, 1))
