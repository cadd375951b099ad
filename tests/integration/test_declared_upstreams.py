"""Two more upstreams, declared in a file outside the package: seven days, and what happens to them.

The file is the one that the how-to shows. The tests are chapters of one story and run in order.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.base import ENTITIES, days_between, shift_day
from feature_store.contracts.errors import InputError
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import open_context
from jobs.pipelines.catalog import pipeline_of
from jobs.pipelines.tasks import arrows, tasks
from jobs.services.redis import stop_redis
from jobs.settings import Home, Settings
from tests.architecture.sources import ROOT
from tests.derm_process import begin, derm, refused
from tests.spoilt import spoil

pytestmark = [pytest.mark.integration, pytest.mark.redis]

FIRST = "2025-03-02"
DAYS = days_between(FIRST, shift_day(FIRST, 6))
RESTS = tuple(ds for i, ds in enumerate(DAYS) if i % 3)
ALL = ("ctr", "cvr", "slow", "wide")
PUBLISHED = ("ctr", "cvr", "wide")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Seven published days of four upstreams."""
    folder = tmp_path_factory.mktemp("four")
    page = (ROOT / "docs" / "howto" / "own_upstream.md").read_text()
    [shown] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (folder / "four.py").write_text(shown)
    root = folder / "home"
    begin(root, f"{folder / 'four.py'}:build")
    derm(root, "run", "--from", DAYS[0], "--to", DAYS[-1])
    yield root
    stop_redis(root)


def digests(home: Path) -> dict[str, str]:
    lake = Lake(home / "lake")
    return {
        f"{ds}/{declare.__name__}/{u}/{e}": lake.artifact(declare(u, e).name, ds).digest
        for ds in DAYS
        for declare in (raw_table, daily_table, pool_table)
        for u in ALL
        for e in ENTITIES
    }


@pytest.fixture(scope="module")
def clean(home: Path) -> dict[str, str]:
    return digests(home)


def pool(home: Path, upstream: str, ds: str, dim: int) -> dict[str, np.ndarray]:
    lake = Lake(home / "lake")
    rows = lake.read(pool_table(upstream, "user"), ds, columns=["entity_id", "embedding"])
    vectors = unpack(rows["embedding"], dim)
    return dict(zip(rows["entity_id"].to_pylist(), vectors, strict=True))


def test_the_dag_has_their_tasks_and_no_arrow_between_them(home: Path) -> None:
    pipeline = pipeline_of(Home.load(home))
    keys = {task.key for task in tasks(pipeline)}
    assert {f"{u}.{t}" for u in ALL for t in ("train", "infer", "aggregate", "verify")} <= keys
    assert {key for key in keys if key.startswith("slow.")}.isdisjoint(
        {"slow.index", "slow.publish"}
    )
    between = {(a, b) for a, b in arrows(pipeline) if {"slow", "wide"} == {a[:4], b[:4]}}
    assert between == set(), "a pool of yesterday is behind the gate"


def test_what_is_published_is_released_and_nothing_else(home: Path) -> None:
    said = json.loads(derm(home, "status", "--json"))
    assert [u["upstream"] for u in said["published"]["upstreams"]] == list(PUBLISHED)
    assert {u["upstream"]: u["dim"] for u in said["published"]["upstreams"]}["wide"] == 48
    assert all(day["complete"] for day in said["days"])
    user = next(iter(pool(home, "wide", DAYS[-1], 48)))
    read = json.loads(derm(home, "get", "user", user, "--upstream", "wide", "--json"))
    assert len(read["vector"]) == 48
    found = json.loads(derm(home, "search", "--user", user, "--upstream", "wide", "--json"))
    assert len(found["pins"]) == 10
    said = refused(home, 1, "get", "user", user, "--upstream", "slow")
    assert "ctr cvr wide" in said


def test_it_rests_between_its_days_and_carries_its_vectors_over(home: Path) -> None:
    manifests = ManifestStore(home / "manifests")
    for ds in DAYS:
        infer, train = (manifests.get(step, ds, "slow") for step in ("infer", "train"))
        assert infer
        assert train
        assert (sum(a.rows for a in infer.outputs) == 0) == (ds in RESTS)
        if ds in RESTS:
            before = manifests.get("train", shift_day(ds, -1), "slow")
            assert train.outputs[0].uri == before.outputs[0].uri
            now, then = pool(home, "slow", ds, 32), pool(home, "slow", shift_day(ds, -1), 32)
            assert now.keys() == then.keys()
            assert all((now[u] == then[u]).all() for u in now)
    # On its next day it has learned from every day since.
    assert manifests.get("train", DAYS[3], "slow").metrics["days"] == 3
    later, earlier = pool(home, "slow", DAYS[3], 32), pool(home, "slow", DAYS[2], 32)
    assert any((later[u] != earlier[u]).any() for u in earlier)


def test_the_pool_of_yesterday_is_what_it_reads(home: Path) -> None:
    manifests = ManifestStore(home / "manifests")
    for step in ("train", "infer"):
        first, *later = (manifests.get(step, ds, "wide") for ds in DAYS)
        names = {f"lake:embeddings/slow/{e}/pool" for e in ENTITIES}
        assert names.isdisjoint(a.name for a in first.inputs)
        for ds, manifest in zip(DAYS[1:], later, strict=True):
            assert {(a.name, a.ds) for a in manifest.inputs} >= {
                (name, shift_day(ds, -1)) for name in names
            }


def test_two_corrupted_days_are_repaired_bit_for_bit(home: Path, clean: dict[str, str]) -> None:
    lake, manifests = Lake(home / "lake"), ManifestStore(home / "manifests")
    wrong = DAYS[3], DAYS[4]
    for ds in wrong:
        for upstream in ALL:
            recorded = manifests.get("infer", ds, upstream)
            outputs = tuple(spoil(lake, upstream, e, ds) for e in ENTITIES)
            if any(a.rows for a in recorded.outputs):
                manifests.put(recorded.model_copy(update={"outputs": outputs}))
    last = ("--from", wrong[0], "--to", DAYS[-1])
    derm(home, "run", *last, "--steps", "dedup,merge", "--force")
    spoilt = {key for key, digest in digests(home).items() if clean[key] != digest}
    assert {key.split("/")[0] for key in spoilt} == set(DAYS[3:])
    days = ("--from", wrong[0], "--to", wrong[1])
    derm(home, "backfill", *days, "--what", "embeddings", "--yes")
    assert digests(home) == clean
    said = json.loads(derm(home, "status", "--json"))
    assert all(day["complete"] for day in said["days"])


def test_a_person_is_forgotten_in_all_of_them(home: Path) -> None:
    user = next(iter(pool(home, "slow", DAYS[-1], 32)))
    derm(home, "forget", "--entity", "user", "--id", user)
    for upstream, dim in (("ctr", 32), ("cvr", 32), ("slow", 32), ("wide", 48)):
        assert all(user not in pool(home, upstream, ds, dim) for ds in DAYS)


def test_retention_rollback_and_report_know_them(home: Path) -> None:
    dropped = json.loads(derm(home, "retain", "--dry-run", "--json"))
    assert not any("slow" in name for name in dropped["dropped"])
    before = json.loads(derm(home, "status", "--json"))["published"]
    derm(home, "rollback")
    after = json.loads(derm(home, "status", "--json"))["published"]
    assert after["release_id"] == before["previous"]
    assert [u["upstream"] for u in after["upstreams"]] == list(PUBLISHED)
    derm(home, "release", "--ds", before["ds"], "--force")
    page = (home / "report" / "index.html").read_text()
    assert all(f">{upstream}</" in page for upstream in ALL)


def test_other_upstreams_are_another_pipeline(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "other" / "four.py"
    shutil.copytree(home.parent, file.parent, ignore=shutil.ignore_patterns("home"))
    text = file.read_text()
    file.write_text(text.replace('pools=("slow",)', 'pools=("fast",)'))
    recipe = f"{file}:build"
    said = refused(tmp_path / "new", 2, "init", "--dataset", "simulated", "--recipe", recipe)
    assert "upstream wide: pools names fast, declared are ctr cvr slow wide" in said
    file.write_text(text.replace("daily_pools=32", "daily_pools=14"))
    derm(tmp_path / "new", "init", "--dataset", "simulated", "--recipe", recipe)
    with pytest.raises(InputError, match=r"reads pools that retention removes"):
        open_context(Settings(home=tmp_path / "new"), FIRST, "wide")
