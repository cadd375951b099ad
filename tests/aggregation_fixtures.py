"""Synthetic raw embeddings, a small data set, and contexts: what the aggregation tests share."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.contracts.manifests import Artifact, StepManifest
from feature_store.contracts.tables import raw_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.filing import never_late
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.schemas import arrow_schema, pack
from jobs.engine.context import RunContext
from jobs.engine.manifests import ManifestStore
from jobs.engine.runner import StepResult, run_step
from jobs.pipelines import catalog
from jobs.recipes import Recipe
from jobs.settings import Home, Settings

FIRST = "2025-03-01"
SPEC = DatasetSpec(
    name="synthetic",
    description="events and embeddings made up by a test",
    surfaces=("home",),
    actions=("none", "click"),
    labels=(
        Label(name="click", upstream="ctr", role="primary", meaning="clicked"),
        Label(name="long_view", upstream="cvr", role="primary", meaning="viewed for long"),
    ),
    features=(
        Feature(name="age", scope="user", kind="categorical", meaning="age group"),
        Feature(name="topic", scope="pin", kind="categorical", meaning="topic"),
    ),
)


def context(
    root: Path, ds: str, upstream: Upstream | None = "ctr", recipe: Recipe | None = None
) -> RunContext:
    """A run context over `root`; the pipeline starts on FIRST."""
    home = Home(dataset="synthetic", recipe="toy", first_ds=FIRST, start_ds=FIRST)
    return RunContext(
        settings=Settings(home=root),
        home=home,
        recipe=recipe or Recipe(name="toy"),
        spec=SPEC,
        lake=Lake(root / "lake"),
        manifests=ManifestStore(root / "manifests"),
        ds=ds,
        upstream=upstream,
        log=logging.getLogger("test"),
    )


def declare_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home of the synthetic data set, and settings that point at it."""
    monkeypatch.setattr("jobs.engine.runner.dataset_spec", lambda *_: SPEC)
    context(root, FIRST).home.save(root)
    return Settings(home=root)


def run(settings: Settings, ds: str, *steps: str, upstream: Upstream = "ctr") -> list[StepResult]:
    """Run steps of one day through the runner."""
    return [run_step(settings, catalog.step(s), ds, upstream, force=False) for s in steps]


def produced(ctx: RunContext, step: str, *outputs: Artifact) -> None:
    """Record a step of another part of the pipeline as finished."""
    upstream = ctx.upstream if catalog.step(step).per_upstream else None
    ctx.manifests.put(
        StepManifest(
            step=step,
            ds=ctx.ds,
            upstream=upstream,
            outputs=outputs,
            started_at="",
            finished_at="",
            duration_s=0.0,
        )
    )


def raw_rows(
    ids: Sequence[str],
    seconds: Sequence[int],
    vectors: npt.ArrayLike,
    ds: str = FIRST,
    space: str = "space-1",
    upstream: Upstream = "ctr",
    entity: Entity = "user",
) -> pa.Table:
    """Raw rows: the i-th is event `e<i>`, `seconds[i]` after the start of `ds`."""
    midnight = int(np.datetime64(ds, "s").astype(np.int64))
    times = (np.asarray(seconds, np.int64) + midnight) * 1_000_000
    n = len(ids)
    return pa.table(
        {
            "entity_id": pa.array(ids, pa.string()),
            "event_id": pa.array([f"e{i:06d}" for i in range(n)], pa.string()),
            "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
            "embedding": pack(np.asarray(vectors, np.float32)),
            "snapshot_id": pa.array([f"snapshot-{ds}"] * n, pa.string()),
            "space_id": pa.array([space] * n, pa.string()),
        }
    ).cast(arrow_schema(raw_table(upstream, entity)))


def commit_raw(
    lake: Lake,
    upstream: Upstream,
    entity: Entity,
    ds: str,
    rows: pa.Table,
    *,
    buckets: int,
    dim: int,
) -> Artifact:
    """Write raw rows into their buckets, as inference does."""
    table = raw_table(upstream, entity)
    of = bucket_of(rows["entity_id"], buckets)
    staged = [
        stage_file(lake.root, table, ds, rows.filter(pa.array(of == b)), bucket=b)
        for b in range(buckets)
    ]
    properties = {"dtype": "float32", "dim": str(dim), "buckets": str(buckets)}
    return lake.commit(table, ds, staged, properties=properties)


def random_day(
    seed: int, ds: str, entity: Entity, *, events: int = 300, entities: int = 120, dim: int = 8
) -> pa.Table:
    """A day of random events: some entities several times, some not at all, ties in time."""
    rng = np.random.default_rng([seed, *ds.encode(), *entity.encode()])
    ids = [f"{entity[0]}{i:05d}" for i in rng.integers(0, entities, events)]
    seconds = rng.integers(0, 600, events).tolist()
    vectors = rng.standard_normal((events, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return raw_rows(ids, seconds, vectors, ds=ds, entity=entity)


def commit_day(
    root: Path,
    ds: str,
    *,
    seed: int = 0,
    buckets: int = 4,
    dim: int = 8,
    upstream: Upstream = "ctr",
) -> None:
    """Raw of both entity types, and the events they come from, of a random day."""
    ctx = context(root, ds, upstream)
    days = {e: random_day(seed, ds, e, dim=dim) for e in ENTITIES}
    raw = [
        commit_raw(ctx.lake, upstream, entity, ds, rows, buckets=buckets, dim=dim)
        for entity, rows in days.items()
    ]
    produced(ctx, "infer", *raw)
    events = commit_events(ctx.lake, ds, days["user"], days["pin"])
    produced(ctx, "ingest", events)


def commit_events(lake: Lake, ds: str, users: pa.Table, pins: pa.Table) -> Artifact:
    """Commit the events that users and Pins occur in."""
    return lake.overwrite(SPEC.events_table(), ds, event_rows(users, pins))


def event_rows(users: pa.Table, pins: pa.Table) -> pa.Table:
    """The events that users and Pins occur in: row i pairs user row i with Pin row i."""
    table, n = SPEC.events_table(), len(users)
    constant = {"surface": "home", "action": "none"}
    columns = {
        "event_id": users["event_id"],
        "ts": users["ts"],
        "user_id": users["entity_id"],
        "pin_id": pins["entity_id"],
        **{name: pa.array([value] * n, pa.string()) for name, value in constant.items()},
        "duration_s": pa.nulls(n, pa.float32()),
        "click": pa.array([0] * n, pa.int8()),
        "long_view": pa.nulls(n, pa.int8()),
    }
    schema = arrow_schema(table)
    return never_late(pa.table(columns)).select(schema.names).cast(schema)
