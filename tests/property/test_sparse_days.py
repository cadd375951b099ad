"""Days without an event, with one, and with all of them in one bucket, through every step."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from feature_store.config import AggregationConfig, LayoutConfig, RetentionConfig
from feature_store.contracts.base import ENTITIES, shift_day
from feature_store.contracts.tables import pool_table, raw_table
from feature_store.index.index import PinIndex
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import sort_rows
from feature_store.lake.maintenance import drop_days
from feature_store.lake.schemas import arrow_schema
from feature_store.online.store import open_store
from jobs.engine.context import Outcome, RunContext
from jobs.recipes import GuardConfig, Recipe
from jobs.steps import count, dedup, index, merge, publish, verify
from jobs.upkeep.rebucket import rebucket
from jobs.upkeep.retain import expired_days
from tests import reference_pool
from tests.aggregation_fixtures import (
    FIRST,
    SPEC,
    commit_events,
    commit_raw,
    context,
    produced,
    raw_rows,
)

BUCKETS, DIM = 4, 3
SKEWED = [i for i in (f"u{n}" for n in range(99)) if bucket_of(pa.array([i]), BUCKETS)[0] == 1][:4]
# What a day holds: nothing, one row, one entity over and over, one bucket alone, or anybody.
IDS = st.one_of(
    st.just([]),
    st.lists(st.sampled_from(SKEWED[:1]), min_size=1, max_size=4),
    st.lists(st.sampled_from(SKEWED), min_size=1, max_size=6),
    st.lists(st.sampled_from([f"u{n}" for n in range(12)]), min_size=1, max_size=12),
)
DAYS = st.lists(IDS, min_size=1, max_size=3)
RECIPE = Recipe(
    name="toy",
    aggregation=AggregationConfig(inactive_days=1),
    layout=LayoutConfig(user_buckets=BUCKETS, pin_buckets=BUCKETS),
    # Two users may be nearly alike by chance.
    guards=GuardConfig(min_effective_rank=0.9),
)


def at(root: Path, ds: str) -> RunContext:
    ctx = context(root, ds, recipe=RECIPE)
    url = SecretStr(f"file://{root}/store")
    return dataclasses.replace(ctx, settings=ctx.settings.model_copy(update={"redis_url": url}))


def arrive(root: Path, ds: str, ids: list[str]) -> None:
    """A day's events and raw embeddings, as ingest and infer leave them."""
    ctx, rows = at(root, ds), {}
    for entity in ENTITIES:
        # Other vectors every day: two users who are alike would be a collapse.
        random = np.random.default_rng((len(ids), int(ds[-2:])))
        vectors = random.standard_normal((len(ids), DIM))
        rows[entity] = raw_rows(ids, range(len(ids)), vectors, ds=ds, entity=entity)
    raw = [commit_raw(ctx.lake, "ctr", e, ds, rows[e], buckets=BUCKETS, dim=DIM) for e in ENTITIES]
    produced(ctx, "infer", *raw)
    pins = ctx.lake.overwrite(SPEC.pins_table(), ds, arrow_schema(SPEC.pins_table()).empty_table())
    produced(ctx, "ingest", commit_events(ctx.lake, ds, rows["user"], rows["pin"]), pins)


def step(name: str, outcome: Outcome, ctx: RunContext) -> Outcome:
    produced(ctx, name, *outcome.outputs)
    return outcome


def play(root: Path, days: list[list[str]]) -> dict[str, dict[str, reference_pool.State]]:
    """Every day up to its pool; and the pools as the plain recursion has them."""
    expected: dict[str, dict[str, reference_pool.State]] = {e: {} for e in ENTITIES}
    for number, ids in enumerate(days):
        ds = shift_day(FIRST, number)
        arrive(root, ds, ids)
        ctx = at(root, ds)
        step("dedup", dedup.run(ctx), ctx)
        step("merge", merge.run(ctx), ctx)
        step("count", count.run(ctx), ctx)
        for entity in ENTITIES:
            daily = reference_pool.last_of_day(ctx.lake.read(raw_table("ctr", entity), ds))
            config = RECIPE.aggregation
            expected[entity] = reference_pool.step(expected[entity], daily, ds, config)
    return expected


def pool_rows(ctx: RunContext, entity: str) -> list[tuple[object, ...]]:
    pool = sort_rows(ctx.lake.read(pool_table("ctr", entity), ctx.ds), ["entity_id"])
    return reference_pool.table_rows(pool)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(days=DAYS)
@example(days=[SKEWED, [], SKEWED[:1]])
@example(days=[[]])
def test_every_step_takes_every_day(
    tmp_path_factory: pytest.TempPathFactory, days: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("home")
    expected = play(root, days)
    ctx = at(root, shift_day(FIRST, len(days) - 1))
    for entity in ENTITIES:
        assert pool_rows(ctx, entity) == reference_pool.as_rows(
            expected[entity], RECIPE.aggregation
        )
        counts = ctx.lake.read(SPEC.counts_table(entity), ctx.ds)
        seen = {i for ids in days for i in ids}
        assert set(counts["entity_id"].to_pylist()) == seen
    metrics = step("verify", verify.run(ctx), ctx).metrics
    assert metrics["pool_user"] == len(expected["user"])
    outcome = index.run(ctx)
    found = PinIndex(root / outcome.outputs[0].uri).search(np.ones((1, DIM), np.float32), 3)
    pins = sorted(expected["pin"])
    assert sorted(i for i in found.ids[0] if i) == (
        pins if len(pins) <= 3 else sorted(found.ids[0])
    )
    if expected["user"]:
        users = publish.run(ctx).outputs[0]
        store = open_store(f"file://{root}/store", RECIPE.publishing)
        values = store.read(users.uri, [*expected["user"], "nobody"])
        assert [v is not None for v in values] == [True] * len(expected["user"]) + [False]
    for entity in ENTITIES:
        for table in (pool_table("ctr", entity), SPEC.counts_table(entity)):
            before = sort_rows(ctx.lake.read(table, ctx.ds), ["entity_id"])
            rebucket(ctx, table, 7)
            assert sort_rows(ctx.lake.read(table, ctx.ds), ["entity_id"]) == before
    kept = RetentionConfig(daily_pools=1, weekly_pools=0, raw_days=1, daily_days=1)
    for name, gone in expired_days(ctx.lake, ctx.home.upstreams, kept, frozenset()).items():
        drop_days(ctx.lake, name, gone)
        assert ctx.lake.days(name) == (ctx.ds,)
