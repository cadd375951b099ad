"""The cluster profile as it is written, without containers: a day and a repair, bit for bit.

Takes about three minutes, most of it waiting: DERM_TEST_CLUSTER=1 runs it.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.services.airflow_api import AirflowApi
from tests.airflow_fixtures import AIRFLOW_PYTHON
from tests.chaos.cluster import DAGS, patiently
from tests.chaos.lane import Lane
from tests.chaos.state import differences, observe
from tests.cluster.compose import Compose
from tests.cluster.native import Cluster, running
from tests.cluster.objects import MOTO

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.spark,
    pytest.mark.redis,
    pytest.mark.skipif(
        not AIRFLOW_PYTHON.exists(), reason="Airflow is not installed: make .venv-airflow/.airflow"
    ),
    pytest.mark.skipif(not MOTO.exists(), reason="no object store is installed: make .venv-s3/.s3"),
    pytest.mark.skipif(
        not os.environ.get("DERM_TEST_CLUSTER"), reason="long: DERM_TEST_CLUSTER=1 runs it"
    ),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not pytest's: PostgreSQL's own user has to get through to its data.
    with tempfile.TemporaryDirectory(prefix="derm-cluster-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, str]]:
    """What one machine makes of the same day, and of the same repair."""
    return dict(Lane(folder=folder / "one-machine", through="process", days=1).prepare())


@pytest.fixture(scope="module")
def lane(folder: Path) -> Lane:
    made = Lane(folder=folder, through="process", days=1)
    compose = compose_of(made)
    told = compose.lake_environment | compose.spark_environment
    return replace(made, environment=tuple(told.items()))


def compose_of(lane: Lane) -> Compose:
    return Compose(lane.home, lane.folder / "cluster", (("DERM_LAST_DS", lane.day),))


@pytest.fixture(scope="module")
def services(lane: Lane) -> Iterator[tuple[Cluster, AirflowApi]]:
    with running(compose_of(lane), before=lane.begin) as started:
        yield started


def test_every_health_check_of_the_file_passes(services: tuple[Cluster, AirflowApi]) -> None:
    cluster, _ = services
    assert len(cluster.checked()) >= 13
    for service in cluster.checked():
        cluster.await_health(service)


def test_no_argument_of_a_process_is_a_secret(services: tuple[Cluster, AirflowApi]) -> None:
    cluster, _ = services
    secrets = cluster.compose.secrets.values()
    lines = {" ".join(p.cmdline()) for s in cluster.checked() for p in cluster.members(s)}
    assert len(lines) >= len(cluster.checked())
    assert [line for line in lines if any(secret in line for secret in secrets)] == []


def test_days_through_the_cluster_are_those_of_one_machine(
    services: tuple[Cluster, AirflowApi], lane: Lane, expected: dict[str, dict[str, str]]
) -> None:
    cluster, api = services
    patiently(lambda: api.has_read(DAGS["daily"], lane.day))
    api.set_paused(DAGS["daily"], paused=False)
    days = patiently(lambda: _ended(api, 2))
    assert days == {lane.wrong: "success", lane.day: "success"}
    assert not (lane.home / "lake").exists()
    found = observe(lane.home, cluster.compose.store_url, lane.lake)
    assert differences(expected["daily"], found) == []


def test_both_queues_and_both_spark_workers_were_used(
    services: tuple[Cluster, AirflowApi],
) -> None:
    cluster, _ = services
    for worker in ("worker-cpu", "worker-gpu"):
        assert "succeeded in" in (cluster.logs / f"{worker}.log").read_text()
    for worker in ("spark-worker", "spark-worker.1"):
        assert "Asked to launch executor" in (cluster.logs / f"{worker}.log").read_text()


def test_a_repair_through_the_cluster_is_that_of_one_machine(
    services: tuple[Cluster, AirflowApi], lane: Lane, expected: dict[str, dict[str, str]]
) -> None:
    cluster, api = services
    lane.spoil(DERM_REDIS_URL=cluster.compose.store_url)
    conf = {"first_day": lane.wrong, "last_day": lane.wrong, "what": "embeddings"}
    run_id = api.trigger(DAGS["backfill"], conf)
    ended = ("success", "failed")
    state = patiently(lambda: (s := api.run_state(DAGS["backfill"], run_id)) in ended and s)
    assert state == "success"
    found = observe(lane.home, cluster.compose.store_url, lane.lake)
    assert differences(expected["backfill"], found) == []


def _ended(api: AirflowApi, number: int) -> dict[str, str] | None:
    """How the days ended, once so many have."""
    runs = {r.ds: r.state for r in api.runs(DAGS["daily"])}
    over = [s for s in runs.values() if s in ("success", "failed")]
    return runs if len(over) == number or "failed" in over else None
