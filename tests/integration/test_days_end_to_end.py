"""Whole days through every real part: training, Spark, Delta, Redis and FAISS.

The oracle is the recursion of the moving average as its definition reads, one entity after the
other, fed from the daily tables alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.config import AggregationConfig
from feature_store.contracts.base import ENTITIES, Entity, Upstream, days_between
from feature_store.contracts.manifests import StepManifest
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import daily
from jobs.rendering.exposition import ONLY_WHEN_RANKED
from jobs.rendering.state_metrics import ONLY_WHEN_WRONG
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings
from tests.brief_recipe import BRIEF
from tests.data_fixtures import real_data
from tests.derm_process import derm
from tests.pipelines import UPSTREAMS
from tests.reference_pool import State, as_rows, step, table_rows

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis, pytest.mark.data]

AGGREGATION = AggregationConfig(heuristic="ma", w=0.8, inactive_days=90)
DAYS = days_between("2022-04-08", "2022-04-14")


@dataclass(frozen=True)
class Pipeline:
    """A home in which every day has run."""

    home: Path

    def derm(self, *arguments: str) -> str:
        """Run a command in this home; it must succeed."""
        return derm(self.home, *arguments)

    @property
    def lake(self) -> Lake:
        return Lake(self.home / "lake")

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, redis_url="")

    def manifests(self, ds: str) -> dict[tuple[str, str | None], StepManifest]:
        store = ManifestStore(self.home / "manifests")
        return {(m.step, m.upstream): m for m in store.of_day(ds)}

    def digests(self, ds: str) -> dict[str, str]:
        """Content digest of everything the day's steps wrote, but for the record of the run."""
        return {
            artifact.name: artifact.digest
            for manifest in self.manifests(ds).values()
            for artifact in manifest.outputs
            if manifest.step not in ("report", "audit")
        }


@pytest.fixture(scope="module")
def kuairand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Seven real days, all of them published."""
    source = real_data("kuairand")
    pipeline = Pipeline(tmp_path_factory.mktemp("kuairand") / "home")
    dataset = ["--dataset", "kuairand", "--source", str(source), "--recipe", BRIEF]
    pipeline.derm("init", *dataset, "--first", DAYS[0], "--start", DAYS[0])
    pipeline.derm("run", "--from", DAYS[0], "--to", DAYS[-1])
    yield pipeline
    stop_redis(pipeline.home)


@pytest.mark.parametrize("entity", ENTITIES)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_every_pool_is_the_recursion_over_the_daily_tables(
    kuairand: Pipeline, upstream: Upstream, entity: Entity
) -> None:
    daily, pool = daily_table(upstream, entity), pool_table(upstream, entity)
    dim = int(kuairand.lake.properties(pool.name)["dim"])
    state: dict[str, State] = {}
    for ds in DAYS:
        rows = kuairand.lake.read(daily, ds)
        vectors = dict(
            zip(rows["entity_id"].to_pylist(), unpack(rows["embedding"], dim), strict=True)
        )
        state = step(state, vectors, ds, AGGREGATION)
        found = kuairand.lake.read(pool, ds)
        assert sorted(table_rows(found)) == as_rows(state, AGGREGATION), ds
    assert max(s.updates for s in state.values()) == len(DAYS) or entity == "pin"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_redis_holds_exactly_the_pools_users(kuairand: Pipeline, upstream: Upstream) -> None:
    url = ensure_redis(kuairand.settings)
    client = FeatureClient(url, upstream=upstream, home=kuairand.home, timeout_s=5.0)
    entry = next(e for e in client.release.upstreams if e.upstream == upstream)
    table = pool_table(upstream, "user")
    pool = kuairand.lake.read(table, DAYS[-1])
    with redis.Redis.from_url(url) as server:
        keys = {k.decode() for k in server.scan_iter(f"{entry.users_prefix}*", count=1000)}
    ids = pool["entity_id"].to_pylist()
    assert keys == {entry.users_prefix + i for i in ids}
    vectors, found = client.get_users(ids)
    assert found.all()
    dim = int(kuairand.lake.properties(table.name)["dim"])
    published = unpack(pool["embedding"], dim).astype(entry.dtype).astype(np.float32)
    np.testing.assert_array_equal(vectors, published)
    client.close()


def test_a_rerun_of_any_day_changes_nothing(kuairand: Pipeline) -> None:
    before = {ds: kuairand.digests(ds) for ds in DAYS}
    for ds in (DAYS[4], DAYS[0], DAYS[6]):
        kuairand.derm("run", "--from", ds, "--to", ds, "--force", "--steps", _UP_TO_VERIFY)
    assert {ds: kuairand.digests(ds) for ds in DAYS} == before


def test_everything_is_current_after_the_reruns(kuairand: Pipeline) -> None:
    lines = kuairand.derm("run", "--from", DAYS[0], "--to", DAYS[-1]).splitlines()
    ran = {line.split(":")[0] for line in lines if not line.endswith("up to date")}
    assert {name.split()[1] for name in ran} == {"gate"}


def test_every_alert_and_panel_shows_a_number_that_exists(kuairand: Pipeline) -> None:
    import re

    root = Path(__file__).parents[2] / "infra"
    text = (root / "prometheus/alerts.yml").read_text()
    text += (root / "grafana/dashboards/derm.json").read_text()
    wanted = set(re.findall(r"\bderm_[a-z0-9_]+", text))
    shown = set(re.findall(r"^(derm_[a-z0-9_]+)", kuairand.derm("metrics"), re.MULTILINE))
    dags = {path.stem for path in (root.parent / "dags").glob("derm_*.py")}
    assert wanted - dags
    # Shards of id tables tell their own, where there are any.
    elsewhere = (*ONLY_WHEN_RANKED, "derm_tables_")
    wanted = {name for name in wanted if not name.startswith(elsewhere)}
    assert wanted - dags - set(ONLY_WHEN_WRONG) <= shown


_UP_TO_VERIFY = ",".join(
    s.name
    for s in daily.STEPS
    if s.name in ("ingest", "validate", "train", "infer", "dedup", "merge", "count", "verify")
)
