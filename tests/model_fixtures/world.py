"""A tiny declared data set with something to learn, written straight into a lake."""

import dataclasses
import datetime as dt
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.contracts.manifests import Artifact, StepManifest
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import arrow_schema, pack
from feature_store.spark.tasks import run_here
from jobs.engine.context import Outcome, RunContext
from jobs.engine.manifests import ManifestStore
from jobs.recipes import Recipe, toy
from jobs.settings import Home, Settings
from jobs.steps import infer, train
from jobs.steps.count import count_day

FIRST = "2025-03-01"
TOPICS = 4
DENSE = 6
ACTIONS = ("impression", "click", "conversion")

_MIDNIGHT_US = int(dt.datetime(2025, 3, 1, tzinfo=dt.UTC).timestamp() * 1_000_000)


def spec() -> DatasetSpec:
    """Every kind of feature in both entity scopes, two of them in the context."""

    def feature(name, scope, kind, **sizes):
        return Feature(name=name, scope=scope, kind=kind, meaning=name, **sizes)

    return DatasetSpec(
        name="tiny",
        description="tests only",
        surfaces=("home", "search"),
        actions=ACTIONS,
        attribution_days=30,
        labels=(
            Label(name="click", upstream="ctr", role="primary", meaning="clicked"),
            Label(name="good_click", upstream="ctr", role="task", meaning="stayed"),
            Label(name="checkout", upstream="cvr", role="primary", meaning="bought"),
            Label(name="cvr_click", upstream="cvr", role="auxiliary", meaning="clicked"),
        ),
        features=(
            feature("country", "user", "categorical", cardinality=16),
            feature("user_clicks", "user", "numeric"),
            feature("user_rate", "user", "numeric"),
            feature("interests", "user", "list", cardinality=32, max_len=3),
            feature("seen_pins", "user", "sequence", cardinality=64, max_len=5),
            feature("seen_actions", "user", "sequence", cardinality=8, max_len=5),
            feature("topic", "pin", "categorical", cardinality=16),
            feature("pin_clicks", "pin", "numeric"),
            feature("tags", "pin", "list", cardinality=32, max_len=2),
            feature("content", "pin", "embedding", dim=DENSE),
            feature("position", "context", "numeric"),
            feature("query", "context", "categorical", cardinality=16),
        ),
    )


class World:
    """A home with a lake, without Airflow, Redis or a simulator."""

    def __init__(self, root: Path, recipe: Recipe | None = None, *, first: str = FIRST) -> None:
        self.root, self.spec = root, spec()
        self.recipe = recipe or small_recipe()
        self.lake = Lake(root / "lake")
        self.manifests = ManifestStore(root / "manifests")
        self.home = Home(
            dataset="tiny", recipe="toy", first_ds=FIRST, start_ds=first, seed=7, source=""
        )
        self.settings = Settings(home=root, threads=1, device="cpu")

    def context(self, ds: str, upstream: str | None = None) -> RunContext:
        """What the runner would hand to a step."""
        return RunContext(
            settings=self.settings,
            home=self.home,
            recipe=self.recipe,
            spec=self.spec,
            lake=self.lake,
            manifests=self.manifests,
            ds=ds,
            upstream=upstream,
            log=logging.getLogger("test"),
        )

    def add_day(self, ds: str, *, rows: int = 400, users: int = 40, pins: int = 30) -> None:
        """Write one day and the manifests of ingest, validate and count."""
        tables = make_day(self.spec, ds, rows=rows, users=users, pins=pins)
        declared = (self.spec.events_table(), self.spec.users_table(), self.spec.pins_table())
        if shift_day(ds, -1) in self.lake.days("events"):
            yesterday = self.lake.read(declared[0], shift_day(ds, -1))
            tables = (pa.concat_tables([tables[0], late_labels(yesterday, ds)]), *tables[1:])
        outputs = [
            self.lake.overwrite(table, ds, data)
            for table, data in zip(declared, tables, strict=True)
        ]
        self.record("ingest", ds, None, tuple(outputs))
        self.record("validate", ds, None, (Artifact(name="validated", ds=ds, digest="v"),))
        self.count(ds)

    def count(self, ds: str) -> None:
        """`derm count`, without Spark."""
        self.record("count", ds, None, count_day(self.context(ds), run_here).outputs)

    def record(self, step: str, ds: str, upstream: str | None, outputs: tuple) -> None:
        """Write a step's manifest, as the runner does."""
        at = f"{shift_day(ds, 1)}T01:00:00+00:00"
        self.manifests.put(
            StepManifest(
                step=step, ds=ds, upstream=upstream, outputs=outputs,
                started_at=at, finished_at=at, duration_s=0.0,
            )
        )  # fmt: skip

    def train(self, ds: str, upstream: str = "ctr") -> Outcome:
        """`derm train`."""
        outcome = train.run(self.context(ds, upstream))
        self.record("train", ds, upstream, outcome.outputs)
        return outcome

    def infer(self, ds: str, upstream: str = "ctr") -> Outcome:
        """`derm infer`."""
        outcome = infer.run(self.context(ds, upstream))
        self.record("infer", ds, upstream, outcome.outputs)
        return outcome


def small_recipe(**training) -> Recipe:
    """The toy recipe with bounds that a few hundred rows can keep."""
    recipe = toy()
    return dataclasses.replace(
        recipe,
        training=dataclasses.replace(recipe.training, batch_rows=64, **training),
        guards=dataclasses.replace(recipe.guards, max_auc_drop=1.0, min_effective_rank=1.0),
        layout=dataclasses.replace(recipe.layout, user_buckets=3, pin_buckets=2),
    )


def make_day(spec: DatasetSpec, ds: str, *, rows: int, users: int, pins: int) -> tuple:
    """(events, users, pins): a user of topic t clicks Pins of topic t more often."""
    day = len(days_between(FIRST, ds)) - 1
    random = np.random.default_rng((3, day))
    who, what = random.integers(0, users, rows), random.integers(0, pins, rows)
    match = who % TOPICS == what % TOPICS
    click = random.random(rows) < np.where(match, 0.6, 0.1)
    bought = click & (random.random(rows) < 0.5)
    unasked = random.random(rows) < 0.03
    ts = _MIDNIGHT_US + (day * 86_400_000_000) + np.sort(random.integers(0, 86_400_000_000, rows))
    events = {
        "event_id": [f"{ds}-{i}" for i in range(rows)],
        "ts": pa.array(ts, pa.timestamp("us", "UTC")),
        "user_id": [f"user{i}" for i in who],
        "pin_id": [f"pin{i}" for i in what],
        "surface": np.array(("home", "search"))[random.integers(0, 2, rows)],
        "arrived_at": pa.nulls(rows, pa.timestamp("us", "UTC")),
        "impression_id": pa.nulls(rows, pa.string()),
        "action": np.array(ACTIONS)[click.astype(int)],
        "duration_s": pa.nulls(rows, pa.float32()),
        "click": click.astype(np.int8),
        "good_click": (click & match).astype(np.int8),
        "checkout": bought.astype(np.int8),
        "cvr_click": click.astype(np.int8),
        "position": pa.array(random.random(rows).astype(np.float32) * 20),
        "query": pa.array([f"q{i}" for i in random.integers(0, 9, rows)], mask=unasked),
    }
    return (
        _table(spec.events_table(), events),
        _table(spec.users_table(), _users(random, users)),
        _table(spec.pins_table(), _pins(random, pins)),
    )


def late_labels(events: pa.Table, ds: str) -> pa.Table:
    """Checkouts of some impressions without one, which arrive at noon of a later day."""
    rows = events.filter(pc.and_(pc.is_null(events["arrived_at"]), pc.equal(events["checkout"], 0)))
    rows = rows.take(list(range(0, len(rows), 30)))
    noon = pa.scalar(dt.datetime.fromisoformat(f"{ds}T12:00:00Z"), pa.timestamp("us", "UTC"))
    unknown = pa.nulls(len(rows), pa.int8())
    told = {
        "event_id": pc.binary_join_element_wise(rows["event_id"], "late", "-"),
        "arrived_at": pa.repeat(noon, len(rows)),
        "impression_id": rows["event_id"],
        "action": pa.array(["conversion"] * len(rows)),
        **dict.fromkeys(("click", "good_click", "cvr_click"), unknown),
        "checkout": pa.array([1] * len(rows), pa.int8()),
    }
    return _table_of(rows.schema, {name: told.get(name, rows[name]) for name in rows.schema.names})


def next_day(ds: str) -> str:
    """The day after."""
    return shift_day(ds, 1)


def _users(random: np.random.Generator, count: int) -> dict:
    index = np.arange(count)
    lengths = random.integers(0, 8, count)
    seen = [[f"pin{j}" for j in range(n)] for n in lengths]
    return {
        "user_id": [f"user{i}" for i in index],
        "country": pa.array([f"c{i % 3}" for i in index], mask=index % 7 == 0),
        "user_clicks": pa.array((index * 3).astype(np.float32)),
        "user_rate": pa.array(random.random(count).astype(np.float32), mask=index % 5 == 0),
        "interests": [[f"t{i % TOPICS}"] * (i % 3 + 1) for i in index],
        "seen_pins": seen,
        "seen_actions": [["click"] * len(s) for s in seen],
    }


def _pins(random: np.random.Generator, count: int) -> dict:
    index = np.arange(count)
    return {
        "pin_id": [f"pin{i}" for i in index],
        "topic": [f"t{i % TOPICS}" for i in index],
        "pin_clicks": pa.array((index % 11).astype(np.float32)),
        "tags": [[f"tag{i % 5}", f"tag{i % 2}"][: i % 3] for i in index],
        "content": pack(random.standard_normal((count, DENSE)).astype("<f4")),
    }


def _table(table, columns: dict) -> pa.Table:
    return _table_of(arrow_schema(table), columns)


def _table_of(schema: pa.Schema, columns: dict) -> pa.Table:
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)
