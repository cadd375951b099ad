"""derm retain, forget and rebucket on a lake of some days."""

import dataclasses
import itertools
import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.config import LayoutConfig, RetentionConfig
from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.manifests import Release
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.maintenance import pools_to_keep
from feature_store.lake.schemas import arrow_schema
from feature_store.spark.rebucket import sources
from jobs.engine import unfinished
from jobs.engine.context import RunContext
from jobs.engine.runner import is_current, open_context, resolve_inputs
from jobs.engine.unfinished import BackfillPlan
from jobs.pipelines import catalog
from jobs.settings import Settings
from jobs.upkeep.forget import forget
from jobs.upkeep.rebucket import import_raw, rebucket
from jobs.upkeep.retain import expired_days, protected_days
from jobs.upkeep.scrub import prove_gone, scrub
from tests.aggregation_fixtures import (
    FIRST,
    SPEC,
    commit_day,
    commit_raw,
    context,
    declare_home,
    random_day,
    run,
)
from tests.pipelines import DECLARED

DAYS = days_between(FIRST, shift_day(FIRST, 2))


@pytest.fixture
def lake_of_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    settings = declare_home(tmp_path, monkeypatch)
    for ds in DAYS:
        commit_day(tmp_path, ds)
        run(settings, ds, "dedup", "merge")
    return context(tmp_path, DAYS[-1])


def killed_at(number: int, function: Any) -> Callable[..., Any]:
    """The function, until it is called for the `number`-th time."""
    calls = itertools.count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return call


def stale(ctx: RunContext) -> list[tuple[str, str]]:
    """Steps whose record no longer follows from their inputs."""
    found = []
    for ds in DAYS:
        for name in ("dedup", "merge"):
            view, step = open_context(ctx.settings, ds, "ctr"), catalog.step(name)
            manifest = ctx.manifests.get(name, ds, "ctr")
            if not manifest or not is_current(view, step, manifest, resolve_inputs(view, step)):
                found.append((name, ds))
    return found


@pytest.mark.spark
def test_a_forgotten_user_is_in_no_file_and_nothing_has_to_be_recomputed(
    lake_of_days: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, table = lake_of_days, pool_table("ctr", "user")
    monkeypatch.setattr("jobs.upkeep.forget.unpublish", lambda *_: ({}, ()))
    monkeypatch.setattr("jobs.upkeep.forget.published", lambda *_: set())
    known = ctx.lake.read(table, DAYS[0])["entity_id"].to_pylist()
    gone, before = known[3], {ds: ctx.lake.read(table, ds) for ds in DAYS}
    record = forget(ctx, "user", [gone])
    assert gone not in record.model_dump_json()
    assert set(record.found) >= {"lake:events", f"lake:{table.name}"}
    for ds in DAYS:
        rows = before[ds].filter(pa.compute.not_equal(before[ds]["entity_id"], gone))
        assert ctx.lake.read(table, ds).equals(rows)
    assert stale(ctx) == []
    hits = [
        file
        for file in Path(ctx.lake.root.root).rglob("*")
        if file.is_file() and file.suffix != ".parquet" and gone.encode() in file.read_bytes()
    ]
    assert hits == []


@pytest.mark.spark
def test_what_was_stale_before_someone_is_forgotten_is_stale_afterwards(
    lake_of_days: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = lake_of_days
    monkeypatch.setattr("jobs.upkeep.forget.unpublish", lambda *_: ({}, ()))
    monkeypatch.setattr("jobs.upkeep.forget.published", lambda *_: set())
    # The first day is inferred and deduplicated again: the pools after it are of another past.
    commit_day(ctx.root, DAYS[0], seed=1)
    run(ctx.settings, DAYS[0], "dedup")
    before = stale(ctx)
    assert before == [("merge", DAYS[0])]
    gone = ctx.lake.read(pool_table("ctr", "user"), DAYS[0])["entity_id"][3].as_py()
    forget(ctx, "user", [gone])
    assert stale(ctx) == before


def test_the_proof_finds_what_was_left(tmp_path: Path) -> None:
    ctx = context(tmp_path, FIRST)
    commit_day(tmp_path, FIRST)
    table = raw_table("ctr", "user")
    known = ctx.lake.read(table, FIRST)["entity_id"][0].as_py()
    with pytest.raises(Exception, match="still on disk"):
        prove_gone(ctx.lake, [table], "user", pa.array([known]), ())


def test_ids_leave_the_lists_that_name_them_and_the_places_stay() -> None:
    rows = pa.table(
        {
            "pin_id": ["a", "b", "c"],
            "seen": [["x", "gone", "y"], [], ["gone"]],
            # Another namespace: the same characters, and not a Pin.
            "tags": [["gone"], [], []],
        }
    )
    kept, removed = scrub(rows, "pin", pa.array(["gone", "b"]), ["seen"])
    expected = {"pin_id": ["a", "c"], "seen": [["x", "", "y"], [""]], "tags": [["gone"], []]}
    assert kept.to_pydict() == expected
    assert removed == 3
    assert scrub(kept, "pin", pa.array(["gone"]), ["seen"]) == (kept, 0)


def test_pools_are_kept_daily_then_on_sundays() -> None:
    days = days_between("2025-01-01", "2025-06-30")  # the last one is a Monday
    kept = pools_to_keep(days, RetentionConfig(daily_pools=14, weekly_pools=3))
    daily = set(days[-14:])
    assert kept - daily == {"2025-06-15", "2025-06-08", "2025-06-01"}
    assert daily <= kept


def test_retention_spares_what_a_release_or_a_backfill_needs(tmp_path: Path) -> None:
    ctx = context(tmp_path, FIRST)
    days = days_between(FIRST, shift_day(FIRST, 9))
    for ds in days:
        commit_raw(ctx.lake, "ctr", "user", ds, random_day(0, ds, "user"), buckets=2, dim=8)
    config = RetentionConfig(raw_days=2)
    name = raw_table("ctr", "user").name
    settings = Settings(home=tmp_path)
    assert expired_days(ctx.lake, DECLARED, config, protected_days(settings, config)) == {
        name: days[:8]
    }
    release = Release(release_id="r", ds=days[4], upstreams=())
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "r.json").write_text(release.model_dump_json())
    plan = BackfillPlan(
        corrupted=(days[6],),
        what="labels",
        retrain=True,
        base=days[5],
        first=days[6],
        last=days[9],
        steps=(),
    )
    unfinished.save(tmp_path, unfinished.Repair(plan=plan))
    expired = expired_days(ctx.lake, DECLARED, config, protected_days(settings, config))
    assert expired == {name: days[:4]}


def test_counts_are_kept_beyond_the_longest_window(tmp_path: Path) -> None:
    lake, table = Lake(tmp_path), SPEC.counts_table("user")
    days = [shift_day(FIRST, number) for number in (0, 29, 30, 120)]
    rows = arrow_schema(table).empty_table()
    for ds in days:
        staged = [stage_file(lake.root, table, ds, rows, bucket=0)]
        layout = {"dtype": "int32", "dim": "12", "buckets": "1"}
        lake.commit(table, ds, staged, properties=layout)
    config = RetentionConfig(counts_days=91)
    assert expired_days(lake, DECLARED, config, frozenset()) == {table.name: tuple(days[:2])}
    assert expired_days(lake, DECLARED, config, frozenset(days[:1])) == {
        table.name: tuple(days[1:2])
    }
    with pytest.raises(ValueError, match="counts_days"):
        RetentionConfig(counts_days=90)


def test_retention_spares_what_readers_see_after_rollbacks(tmp_path: Path) -> None:
    ctx = context(tmp_path, FIRST)
    days = days_between(FIRST, shift_day(FIRST, 7))
    for ds in days:
        commit_raw(ctx.lake, "ctr", "user", ds, random_day(0, ds, "user"), buckets=2, dim=8)
    (tmp_path / "releases").mkdir()
    for before, ds in zip((None, *days), days, strict=False):
        release = Release(
            release_id=f"r-{ds}", ds=ds, upstreams=(), previous=before and f"r-{before}"
        )
        (tmp_path / "releases" / f"r-{ds}.json").write_text(release.model_dump_json())
    (tmp_path / "releases" / "current").write_text(f"r-{days[2]}\n")
    config = RetentionConfig(raw_days=1, releases=2)
    protected = protected_days(Settings(home=tmp_path), config)
    assert protected == {days[1], days[2], days[6], days[7]}
    expired = expired_days(ctx.lake, DECLARED, config, protected)
    assert expired == {raw_table("ctr", "user").name: (days[0], *days[3:6])}


@pytest.mark.spark
@pytest.mark.parametrize("buckets", [2, 6, 8])
def test_rebucketed_tables_hold_the_same_rows_and_stay_current(
    lake_of_days: RunContext, buckets: int
) -> None:
    layout = LayoutConfig(user_buckets=buckets, pin_buckets=buckets)
    ctx = dataclasses.replace(
        lake_of_days, recipe=dataclasses.replace(lake_of_days.recipe, layout=layout)
    )
    tables = [t("ctr", e) for e in ENTITIES for t in (raw_table, daily_table, pool_table)]
    before = {
        t.name: ctx.lake.read(t, DAYS[-1]).sort_by([(k, "ascending") for k in t.key])
        for t in tables
    }
    for table in tables:
        assert [a.ds for a in rebucket(ctx, table, buckets)] == list(DAYS)
        after = ctx.lake.read(table, DAYS[-1]).sort_by([(k, "ascending") for k in table.key])
        assert after.equals(before[table.name])
        assert len(ctx.lake.bucket_files(table.name, DAYS[-1])) == buckets
        assert rebucket(ctx, table, buckets) == []
    assert stale(ctx) == []


@pytest.mark.spark
@pytest.mark.parametrize(
    "blow",
    [
        "feature_store.lake.lake.Lake.commit",
        "pathlib.Path.rename",
        "jobs.engine.manifests.ManifestStore.relabel",
        "shutil.rmtree",
    ],
)
def test_a_killed_rebucketing_is_finished_by_the_next(
    lake_of_days: RunContext, monkeypatch: pytest.MonkeyPatch, blow: str
) -> None:
    ctx, table = lake_of_days, pool_table("ctr", "user")
    before = [ctx.lake.read(table, ds).sort_by("entity_id") for ds in DAYS]
    kills = 0
    for number in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(blow, killed_at(number, pydoc.locate(blow)))
            try:
                rebucket(ctx, table, 6)
            except KeyboardInterrupt:
                kills += 1
    assert kills
    rebucket(ctx, table, 6)
    assert [ctx.lake.read(table, ds).sort_by("entity_id") for ds in DAYS] == before
    assert len(ctx.lake.bucket_files(table.name, DAYS[0])) == 6
    assert [p.name for p in Path(ctx.lake.path(table.name)).parent.iterdir() if "." in p.name] == []
    assert stale(ctx) == []


def test_every_row_of_a_new_bucket_lies_in_its_sources() -> None:
    for old, new in ((4, 6), (8, 2), (3, 5)):
        for h in range(old * new):
            assert h % old in sources(h % new, old, new)


@pytest.mark.spark
def test_unbucketed_raw_is_split_into_buckets(tmp_path: Path) -> None:
    ctx, rows = context(tmp_path, FIRST), random_day(0, FIRST, "user")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(rows.slice(0, 100), files[0])
    pq.write_table(rows.slice(100), files[1])
    artifact = import_raw(ctx, "ctr", "user", files)
    assert artifact.rows == len(rows)
    found = ctx.lake.read(raw_table("ctr", "user"), FIRST)
    keys = [("entity_id", "ascending"), ("event_id", "ascending")]
    assert found.sort_by(keys).equals(rows.sort_by(keys))
    by_bucket = ctx.lake.bucket_files(raw_table("ctr", "user").name, FIRST)
    assert {b: len(f) for b, f in by_bucket.items()} == dict.fromkeys(range(8), 2)
