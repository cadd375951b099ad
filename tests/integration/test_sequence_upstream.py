"""PinnerFormer through the pipeline: trained, embedded, merged, published, searched, forgotten.

The file is the one that the how-to shows. The tests are chapters of one story and run in order.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import ENTITIES, shift_day
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.datasets.registry import dataset_spec
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import stop_redis
from tests.architecture.sources import ROOT
from tests.derm_process import derm

pytestmark = [pytest.mark.integration, pytest.mark.redis]

HISTORY, FIRST, SECOND, LAST = (shift_day("2025-03-01", i) for i in range(4))
UPSTREAM = "pinnerformer"
EVENTS = dataset_spec("simulated", "").events_table()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three published days of three upstreams."""
    folder = tmp_path_factory.mktemp("sequences")
    page = (ROOT / "docs" / "howto" / "sequence_upstream.md").read_text()
    [shown] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (folder / "sequences.py").write_text(shown)
    root = folder / "home"
    recipe = f"{folder / 'sequences.py'}:build"
    derm(root, "init", "--dataset", "simulated", "--recipe", recipe, "--days", "1")
    history = ("run", "--from", HISTORY, "--to", HISTORY)
    derm(root, *history, "--steps", "simulate,ingest,validate,count")
    derm(root, "run", "--from", FIRST, "--to", LAST)
    yield root
    stop_redis(root)


def vectors(home: Path, declare, ds: str, entity: str = "user") -> dict[str, np.ndarray]:
    rows = Lake(home / "lake").read(
        declare(UPSTREAM, entity), ds, columns=["entity_id", "embedding"]
    )
    found = unpack(rows["embedding"], 32)
    return dict(zip(rows["entity_id"].to_pylist(), found, strict=True))


def test_active_users_are_embedded_and_the_others_keep_their_vector(home: Path) -> None:
    today, before = vectors(home, daily_table, LAST), vectors(home, pool_table, SECOND)
    pool = vectors(home, pool_table, LAST)
    assert pool.keys() == today.keys() | before.keys()
    assert all(np.array_equal(pool[user], today[user]) for user in today)
    idle = before.keys() - today.keys()
    assert idle
    assert all(np.array_equal(pool[user], before[user]) for user in idle)
    events = Lake(home / "lake").read(EVENTS, LAST, columns=["user_id", "arrived_at"])
    shown = set(events.filter(pc.is_null(events["arrived_at"]))["user_id"].to_pylist())
    assert today.keys() < shown, "users who never did anything have no sequence"
    norms = np.linalg.norm(np.stack(list(today.values())), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_the_days_looked_back_on_are_inputs(home: Path) -> None:
    manifests = ManifestStore(home / "manifests")
    for step in ("train", "infer"):
        read = {(a.name, a.ds) for a in manifests.get(step, LAST, UPSTREAM).inputs}
        assert {("lake:events", ds) for ds in (HISTORY, FIRST, SECOND, LAST)} <= read
    trained = manifests.get("train", LAST, UPSTREAM)
    assert trained.metrics["rows"] > 0
    assert trained.metrics["auc"] is not None


def test_ctr_reads_its_pool_of_yesterday(home: Path) -> None:
    for step in ("train", "infer"):
        read = ManifestStore(home / "manifests").get(step, LAST, "ctr").inputs
        pools = {(a.name, a.ds) for a in read if "pinnerformer" in a.name}
        assert pools == {(f"lake:embeddings/pinnerformer/{e}/pool", SECOND) for e in ENTITIES}


def test_a_second_run_makes_nothing_and_a_forced_one_the_same(home: Path) -> None:
    lake = Lake(home / "lake")
    before = lake.artifact(pool_table(UPSTREAM, "user").name, LAST).digest
    day = ("--from", LAST, "--to", LAST)
    derm(home, "run", *day, "--steps", "train,infer,dedup,merge", "--force")
    assert lake.artifact(pool_table(UPSTREAM, "user").name, LAST).digest == before


def test_it_is_served_searched_and_forgotten(home: Path) -> None:
    user = next(iter(vectors(home, daily_table, LAST)))
    told = json.loads(derm(home, "get", "user", user, "--upstream", UPSTREAM, "--json"))
    assert len(told["vector"]) == 32
    found = json.loads(derm(home, "search", "--user", user, "--upstream", UPSTREAM, "--json"))
    assert len(found["pins"]) == 10
    derm(home, "forget", "--entity", "user", "--id", user)
    for ds in (FIRST, SECOND, LAST):
        assert user not in vectors(home, pool_table, ds)
        ids = Lake(home / "lake").read(EVENTS, ds, columns=["user_id"])["user_id"]
        assert user not in ids.to_pylist(), "of what sequences are made"
    days = ("--from", SECOND, "--to", LAST)
    derm(home, "backfill", *days, "--what", "embeddings", "--yes")
    assert user not in vectors(home, pool_table, LAST)
    status = json.loads(derm(home, "status", "--json"))
    assert all(day["complete"] for day in status["days"])
