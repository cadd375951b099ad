"""Graphs through the pipeline: a shop whose upstreams both learn from edges, day after day.

One learns every day and is published, one every seventh and is not. Two of its days were wrong, and
are repaired; beside it stands a home in which nothing ever was, with the steps that make vectors.
The tests are chapters of one story.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from feature_store.contracts.base import ENTITIES, days_between
from feature_store.contracts.edges import GRAPH, graph_table
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import stop_redis
from models.training.checkpoint import read_tensors
from tests.chaos import little
from tests.derm_process import derm

pytestmark = [pytest.mark.integration, pytest.mark.redis]

DAYS = days_between("2025-06-02", "2025-06-09")
WRONG, UPSTREAMS = DAYS[3:5], ("graph", "weekly")
# A day more than those that were wrong: what comes after follows from it.
COMPARED = DAYS[:6]
MAKING = "ingest,validate,graph,train,infer,dedup,merge,count"
RECIPE = f"{__file__}:recipe"
_UPSTREAM = """
[[upstreams]]
name = "{name}"
family = "transra"
reads = "edges"
heuristic = "acc"
every_days = {every_days}
published = {published}
model = {{ "score.anchor_relation" = "clicked", embedding_dim = 8, first_passes = 4 }}
"""


def recipe():
    """The shop's, that keeps all of its days."""
    import dataclasses

    from feature_store.config import RetentionConfig

    return dataclasses.replace(little.recipe(), retention=RetentionConfig())


@dataclass(frozen=True)
class Shop:
    """A home, and the folder of what it is delivered."""

    home: Path
    folder: Path

    @property
    def lake(self) -> Lake:
        return Lake(self.home / "lake")

    @property
    def manifests(self) -> ManifestStore:
        return ManifestStore(self.home / "manifests")

    def digests(self, days=COMPARED) -> dict[str, str]:
        names = [GRAPH, *(pool_table(u, e).name for u in UPSTREAMS for e in ENTITIES)]
        found = {f"{n} {ds}": self.lake.artifact(n, ds).digest for n in names for ds in days}
        for upstream in UPSTREAMS:
            for ds in days:
                [snapshot] = self.manifests.get("train", ds, upstream).outputs
                found[f"snapshot/{upstream} {ds}"] = snapshot.digest
        return found

    def vectors(self, declare, upstream: str, ds: str, entity: str) -> dict[str, np.ndarray]:
        rows = self.lake.read(declare(upstream, entity), ds)
        vectors = unpack(rows["embedding"], 8)
        return dict(zip(rows["entity_id"].to_pylist(), vectors, strict=True))


def opened(folder: Path, *, wrong: bool) -> Shop:
    """A shop whose days can run."""
    little.deliver(folder, (little.HISTORY, *DAYS))
    declared = little.DECLARATION.replace('upstream = "ctr"', 'upstream = "graph"')
    for name, every_days in (("graph", 1), ("weekly", 7)):
        declared += _UPSTREAM.format(
            name=name, every_days=every_days, published=str(name == "graph").lower()
        )
    (folder / "little.toml").write_text(declared)
    for ds in WRONG if wrong else ():
        path = folder / "events" / f"{ds}.parquet"
        shutil.copy(path, path.with_suffix(".right"))
        events = pd.read_parquet(path)
        events.assign(clicked=1 - events["clicked"]).to_parquet(path)
    shop = Shop(folder / "home", folder)
    dataset = str(folder / "little.toml")
    derm(shop.home, "init", "--dataset", dataset, "--recipe", RECIPE)
    return shop


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    found = opened(tmp_path_factory.mktemp("right"), wrong=False)
    derm(found.home, "run", "--from", little.HISTORY, "--to", COMPARED[-1], "--steps", MAKING)
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    found = opened(tmp_path_factory.mktemp("graphs"), wrong=True)
    derm(found.home, "run", "--from", little.HISTORY, "--to", DAYS[-1])
    yield found
    stop_redis(found.home)


def test_two_corrupted_days_are_repaired_bit_for_bit(shop: Shop, right: Shop) -> None:
    """Labels were the other way round, and every graph and vector since is another one."""
    found, expected = shop.digests(), right.digests()
    wrong = {name.split()[-1] for name in found if found[name] != expected[name]}
    assert wrong == set(COMPARED[3:])
    for ds in WRONG:
        path = shop.folder / "events" / f"{ds}.parquet"
        path.with_suffix(".right").replace(path)
    days = ("--from", WRONG[0], "--to", WRONG[-1])
    derm(shop.home, "backfill", *days, "--what", "labels", "--yes")
    assert shop.digests() == expected
    status = json.loads(derm(shop.home, "status", "--json"))
    assert all(day["complete"] for day in status["days"])


def test_one_learns_every_day_and_one_every_week(shop: Shop) -> None:
    def learned(upstream: str) -> list[bool]:
        made = [shop.manifests.get("train", ds, upstream) for ds in DAYS]
        return [bool(m.metrics["rows"]) for m in made]

    assert learned("graph") == [True] * 8
    assert learned("weekly") == [True, *[False] * 6, True]
    for upstream, ds in (("graph", DAYS[1]), ("weekly", DAYS[-1])):
        trained = shop.manifests.get("train", ds, upstream)
        assert {(a.name, a.ds) for a in trained.inputs} >= {(f"lake:{GRAPH}", ds)}
        assert trained.metrics["auc"] is not None
        assert trained.metrics["graph_nodes_new"] < trained.metrics["graph_nodes"]
    first = shop.manifests.get("train", DAYS[0], "graph")
    assert "auc" not in first.metrics, "there was no model to score the first graph with"


def test_who_is_embedded_is_a_node_and_others_keep_their_vector(shop: Shop) -> None:
    today = shop.vectors(daily_table, "graph", DAYS[-1], "user")
    before = shop.vectors(pool_table, "graph", DAYS[-2], "user")
    pool = shop.vectors(pool_table, "graph", DAYS[-1], "user")
    assert pool.keys() == today.keys() | before.keys()
    assert all(np.array_equal(pool[user], today[user]) for user in today)
    assert before.keys() - today.keys()
    edges = shop.lake.read(graph_table(), DAYS[-1])
    assert today.keys() <= set(edges["head_id"].to_pylist())
    moved = [float(today[u] @ before[u]) for u in today.keys() & before.keys()]
    assert np.mean(moved) > 0.9


def test_who_is_forgotten_is_in_no_edge_no_pool_and_no_model(shop: Shop) -> None:
    user = next(iter(shop.vectors(daily_table, "graph", DAYS[-1], "user")))
    kept = shop.vectors(pool_table, "graph", DAYS[-1], "user")
    models = sorted((shop.home / "snapshots").glob("*/*/model.safetensors"))
    before = {path: read_tensors(path)[0] for path in models}
    told = json.loads(derm(shop.home, "forget", "--entity", "user", "--id", user, "--json"))
    assert set(told["found"]["snapshot:graph"]) == set(DAYS)
    for ds in DAYS:
        heads = shop.lake.read(graph_table(), ds)["head_id"]
        assert not pc.any(pc.equal(heads, user)).as_py()
        assert user not in shop.vectors(pool_table, "graph", ds, "user")
    key = int(stable_hash(pa.array([user])).view("i8")[0])
    for path, weights in before.items():
        left = read_tensors(path)[0]
        assert (weights["key_N"] == key).sum() == 1
        stays = weights["key_N"] != key
        assert torch.equal(left["key_N"], weights["key_N"][stays])
        name = "model.table.vector_ND"
        assert torch.equal(left[name], weights[name][stays])
    left = shop.vectors(pool_table, "graph", DAYS[-1], "user")
    assert all(np.array_equal(left[other], kept[other]) for other in kept.keys() - {user})
    assert json.loads(derm(shop.home, "verify", "--json"))["damaged"] == []
    status = json.loads(derm(shop.home, "status", "--json"))
    assert all(day["complete"] for day in status["days"]), "nothing has to be made again"
