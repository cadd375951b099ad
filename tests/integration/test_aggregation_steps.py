"""dedup, merge and verify as steps, on a real Spark and a real Delta lake."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.config import AggregationConfig
from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.lake.lake import sort_rows
from jobs.engine.runner import run_step
from jobs.pipelines import catalog
from jobs.recipes import GuardConfig
from jobs.steps.verify import checks_of
from tests import reference_pool
from tests.aggregation_fixtures import FIRST, commit_day, context, declare_home, run

pytestmark = pytest.mark.spark
DAYS = days_between(FIRST, shift_day(FIRST, 3))


@pytest.fixture(params=["local", "spark"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both engines, in turn."""
    monkeypatch.setenv("DERM_ENGINE", request.param)


@pytest.mark.usefixtures("engine")
def test_the_pool_of_every_day_is_the_recursion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, config = declare_home(tmp_path, monkeypatch), AggregationConfig()
    expected: dict[str, dict[str, reference_pool.State]] = {e: {} for e in ENTITIES}
    for ds in DAYS:
        commit_day(tmp_path, ds)
        run(home, ds, "dedup", "merge", "verify")
        lake = context(tmp_path, ds).lake
        for entity in ENTITIES:
            daily = reference_pool.last_of_day(lake.read(raw_table("ctr", entity), ds))
            expected[entity] = reference_pool.step(expected[entity], daily, ds, config)
            pool = sort_rows(lake.read(pool_table("ctr", entity), ds), ["entity_id"])
            rows = reference_pool.as_rows(expected[entity], config)
            assert reference_pool.table_rows(pool) == rows


def test_a_rerun_is_skipped_and_a_forced_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = declare_home(tmp_path, monkeypatch)
    for ds in DAYS[:2]:
        commit_day(tmp_path, ds)
        first = run(home, ds, "dedup", "merge")
    again = run(home, DAYS[1], "dedup", "merge")
    assert [r.skipped for r in again] == [True, True]
    shutil.rmtree(tmp_path / "manifests" / DAYS[1])
    commit_day(tmp_path, DAYS[1])
    repeated = run(home, DAYS[1], "dedup", "merge")
    digests = [[a.digest for a in r.manifest.outputs] for r in (*first, *repeated)]
    assert digests[:2] == digests[2:]


def test_both_engines_write_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, dict[str, bytes]] = {}
    for engine in ("local", "spark"):
        monkeypatch.setenv("DERM_ENGINE", engine)
        root = tmp_path / engine
        home = declare_home(root, monkeypatch)
        for ds in DAYS[:2]:
            commit_day(root, ds)
            assert not any(r.skipped for r in run(home, ds, "dedup", "merge"))
        lake = root / "lake" / "embeddings"
        # Their names begin with a number that is drawn; the folder says day and bucket.
        written[engine] = {
            f.parent.relative_to(lake).as_posix(): f.read_bytes() for f in lake.rglob("*.parquet")
        }
    assert len(written["local"]) == 2 * 2 * 3 * 4  # days, entity types, tables, buckets
    assert written["local"] == written["spark"]


def test_completed_days_run_again_in_any_order_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = declare_home(tmp_path, monkeypatch)
    for ds in DAYS:
        commit_day(tmp_path, ds)
        run(home, ds, "dedup", "merge", "verify")
    lake = context(tmp_path, FIRST).lake
    tables = [t("ctr", e).name for t in (daily_table, pool_table) for e in ENTITIES]
    before = {(name, ds): lake.artifact(name, ds) for name in tables for ds in DAYS}
    choice = st.tuples(st.sampled_from(DAYS), st.sampled_from(["dedup", "merge", "verify"]))

    @settings(max_examples=5, deadline=None)
    @given(order=st.lists(choice, min_size=1, max_size=5))
    def again(order: list[tuple[str, str]]) -> None:
        for ds, step in order:
            run_step(home, catalog.step(step), ds, "ctr", force=True)
        after = {(name, ds): lake.artifact(name, ds) for name in tables for ds in DAYS}
        assert {k: a.digest for k, a in after.items()} == {k: a.digest for k, a in before.items()}
        for ds in DAYS:
            assert all(r.skipped for r in run(home, ds, "dedup", "merge", "verify"))

    again()


def test_verify_measures_coverage_by_yesterdays_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = declare_home(tmp_path, monkeypatch)
    for ds in DAYS[:2]:
        commit_day(tmp_path, ds)
        metrics = run(home, ds, "dedup", "merge", "verify")[-1].manifest.metrics
    lake = context(tmp_path, DAYS[1]).lake
    known = set(lake.read(pool_table("ctr", "user"), DAYS[0])["entity_id"].to_pylist())
    seen = lake.read(raw_table("ctr", "user"), DAYS[1])["entity_id"].to_pylist()
    assert metrics["coverage_rows_user"] == sum(s in known for s in seen) / len(seen)
    distinct = set(seen)
    assert metrics["coverage_entities_user"] == len(distinct & known) / len(distinct)
    shares = [metrics[f"{name}_user"] for name in ("updated", "new", "carried")]
    assert sum(shares) == pytest.approx(1.0)


def test_merge_needs_yesterday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = declare_home(tmp_path, monkeypatch)
    commit_day(tmp_path, DAYS[1])
    run(home, DAYS[1], "dedup")
    with pytest.raises(MissingInput, match=f"pool of {DAYS[0]}"):
        run(home, DAYS[1], "merge")


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("coverage_rows_user", 0.1),
        ("cosine_updated_pin", 0.1),
        ("effective_rank_pin", 1.0),
        ("pool_user", 400),
        ("cosine_user", float("nan")),
    ],
)
def test_a_broken_bound_is_named(metric: str, value: float) -> None:
    guards, entity = GuardConfig(min_coverage=0.5), ENTITIES["pin" in metric]
    sizes = {f"{n}_{entity}": 1000 for n in ("sampled", "before")}
    errors = {f"{metric.removesuffix(f'_{entity}')}_se_{entity}": 0.01}
    assert not any(c.breaks for c in checks_of({**sizes, **errors}, guards, entity, 8))
    checks = checks_of({**sizes, **errors, metric: value}, guards, entity, 8)
    assert [c.number for c in checks if c.breaks] == [metric]
