"""A small home with pools that evolve day by day, for the tests of publishing."""

import datetime as dt
import importlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import Entity, Upstream, shift_day
from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.contracts.manifests import Artifact, StepManifest
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.schemas import arrow_schema, pack
from jobs.engine.context import Outcome, RunContext
from jobs.engine.manifests import ManifestStore
from jobs.recipes import Recipe
from jobs.services.redis import stop_redis
from jobs.settings import Home, Settings
from tests.pipelines import UPSTREAMS

START = "2025-03-01"
SPEC = DatasetSpec(
    name="test",
    description="random pools",
    surfaces=("feed",),
    actions=("view",),
    labels=(
        Label(name="click", upstream="ctr", role="primary", meaning="clicked"),
        Label(name="buy", upstream="cvr", role="primary", meaning="bought"),
    ),
    features=(
        Feature(name="country", scope="user", kind="categorical", meaning="country"),
        Feature(name="topic", scope="pin", kind="categorical", meaning="primary interest"),
        Feature(name="age", scope="pin", kind="numeric", meaning="days since it was created"),
    ),
)


def patient_client(url: str, **options: Any) -> FeatureClient:
    """A ranker's client that waits for its answers, however busy the machine is."""
    return FeatureClient(url, timeout_s=30.0, **options)


@dataclass
class Pool:
    """Rows of one pool. Column i of `vectors` starts with the number of the day they changed."""

    ids: np.ndarray
    vectors: np.ndarray
    last_daily: np.ndarray


@dataclass
class World:
    """Pools of both upstreams, and the manifests that the steps before publishing would write."""

    root: Path
    users: int = 400
    pins: int = 60
    dim: int = 16
    seed: int = 0
    space: str = "2025-02-28-first"
    recipe: Recipe = field(default_factory=lambda: Recipe(name="test"))
    redis_url: str = ""

    def __post_init__(self) -> None:
        self.lake = Lake(self.root / "lake")
        self.manifests = ManifestStore(self.root / "manifests")
        self.pools: dict[tuple[str, str], Pool] = {}
        self.last: dict[str, Artifact] = {}
        Home(dataset="simulated", recipe="toy", first_ds=START, start_ds=START).save(self.root)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.root, redis_url=self.redis_url, threads=1)

    def context(self, ds: str, upstream: Upstream | None) -> RunContext:
        return RunContext(
            settings=self.settings,
            home=Home.load(self.root),
            recipe=self.recipe,
            spec=SPEC,
            lake=self.lake,
            manifests=self.manifests,
            ds=ds,
            upstream=upstream,
            log=logging.getLogger("derm"),
        )

    def grow(self, ds: str, *, change: float = 0.2, prune: float = 0.02, fresh: float = 0.02):
        """Make the pools of a day from those of the day before, and commit them."""
        rng = np.random.default_rng([self.seed, int(ds.replace("-", ""))])
        for u in UPSTREAMS:
            for e in ("user", "pin"):
                self.pools[u, e] = self._next(rng, u, e, ds, change, prune, fresh)
                self.commit(ds, u, e)
        pins = [f"pin{i}" for i in range(self.pins)]
        topics = [f"t{i % 4}" for i in range(self.pins)]
        ages = [float(i) if i % 3 else None for i in range(self.pins)]
        table = SPEC.pins_table()
        features = pa.table({"pin_id": pins, "topic": topics, "age": ages}).cast(
            arrow_schema(table)
        )
        artifact = self.lake.overwrite(table, ds, features)
        self.record("ingest", ds, None, [artifact])
        for u in UPSTREAMS:
            self.record("verify", ds, u, [Artifact(name=f"verified:{u}", ds=ds, digest=ds)])

    def commit(self, ds: str, u: Upstream, e: Entity, spaces: list[str] | None = None) -> None:
        """Write one pool to the lake and record it as merge would."""
        pool, table = self.pools[u, e], pool_table(u, e)
        rows = pa.table(
            {
                "entity_id": pa.array(pool.ids.tolist(), pa.string()),
                "embedding": pack(pool.vectors),
                "last_daily": pa.array(pool.last_daily.tolist(), pa.string()),
                "last_active": pa.array(pool.last_daily.tolist(), pa.string()),
                "updates": pa.array(np.ones(len(pool.ids)), pa.int32()),
                "previous_daily": pa.nulls(len(pool.ids), pa.binary()),
                "space_id": pa.array(spaces or [self.space] * len(pool.ids), pa.string()),
            }
        )
        schema = pa.schema(
            [rows.schema.field(c.name).with_nullable(c.nullable) for c in table.columns]
        )
        rows, buckets = rows.cast(schema), self.recipe.layout.buckets(e)
        of = bucket_of(rows["entity_id"], buckets)
        staged = [
            stage_file(self.lake.root, table, ds, rows.filter(pa.array(of == b)), bucket=b)
            for b in range(buckets)
        ]
        properties = {"dtype": "float32", "dim": str(self.dim), "buckets": str(buckets)}
        artifact = self.lake.commit(table, ds, staged, properties=properties)
        name, parents = f"lake:{table.name}", [self.last.get(f"lake:{table.name}")]
        before = self.manifests.get("merge", ds, u)
        kept = [] if before is None else [a for a in before.outputs if a.name != name]
        kept_in = [] if before is None else [a for a in before.inputs if a.name != name]
        inputs = [p for p in parents if p and p.ds == shift_day(ds, -1)]
        self.record("merge", ds, u, [*kept, artifact], [*kept_in, *inputs])
        self.last[name] = artifact

    def record(self, step, ds, upstream, outputs, inputs=(), metrics=None) -> None:
        now = dt.datetime.now(dt.UTC).isoformat()
        self.manifests.put(
            StepManifest(
                step=step,
                ds=ds,
                upstream=upstream,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                metrics=metrics or {},
                started_at=now,
                finished_at=now,
                duration_s=0.0,
            )
        )

    def step(
        self, name: str, ds: str, upstream: Upstream | None = None, *, force: bool = False
    ) -> Outcome:
        """Run one step as the runner does, without its question whether it must."""
        ctx = replace(self.context(ds, upstream), force=force)
        outcome = importlib.import_module(f"jobs.steps.{name}").run(ctx)
        self.record(name, ds, upstream, outcome.outputs, metrics=outcome.metrics)
        return outcome

    def publish(self, ds: str, *, force: bool = False) -> dict[str, Outcome]:
        """Index, publish and release one day."""
        done = {}
        for u in UPSTREAMS:
            done[f"index {u}"] = self.step("index", ds, u, force=force)
            done[f"publish {u}"] = self.step("publish", ds, u, force=force)
        done["release"] = self.step("release", ds)
        return done

    def with_publishing(self, **changes) -> None:
        """Change the publishing part of the recipe."""
        self.recipe = replace(self.recipe, publishing=replace(self.recipe.publishing, **changes))

    def close(self) -> None:
        stop_redis(self.root)

    def _next(self, rng, u, e, ds, change, prune, fresh) -> Pool:
        old = self.pools.get((u, e))
        if old is None:
            count = self.users if e == "user" else self.pins
            ids = np.array([f"{e}{i}" for i in range(count)], object)
            vectors = rng.standard_normal((count, self.dim), np.float32)
            return Pool(ids, vectors, np.full(count, ds, object))
        kept = rng.random(len(old.ids)) >= prune
        ids, vectors, days = old.ids[kept], old.vectors[kept].copy(), old.last_daily[kept].copy()
        touched = rng.random(len(ids)) < change
        vectors[touched] += 0.1 * rng.standard_normal((touched.sum(), self.dim), np.float32)
        days[touched] = ds
        added = round(fresh * len(ids))
        new_ids = np.array([f"{e}-{ds}-{i}" for i in range(added)], object)
        new = rng.standard_normal((added, self.dim), np.float32)
        return Pool(
            np.concatenate([ids, new_ids]),
            np.concatenate([vectors, new]),
            np.concatenate([days, np.full(added, ds, object)]),
        )
