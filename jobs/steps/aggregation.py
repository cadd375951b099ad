"""What dedup, merge and count share: a task per bucket, here or on Spark; one commit per table."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.errors import SpaceMismatch
from feature_store.contracts.manifests import Artifact, Metrics
from feature_store.contracts.tables import Table
from feature_store.lake.layout import Layout
from feature_store.spark.aggregation import BucketResult
from feature_store.spark.tasks import BucketTask, bytes_read, run_here, run_tasks
from jobs.engine.context import Outcome, RunContext
from jobs.settings import Settings

# What a core merges while a JVM starts.
LOCAL_BYTES = 4 << 30

T = TypeVar("T", bound=BucketTask)
R = TypeVar("R")


def run_bucket_tasks(ctx: RunContext, function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """Run one task per bucket; results in the order of `tasks`, the same bits wherever they run."""
    settings = ctx.settings
    if engine_of(settings, tasks) == "local":
        return run_here(function, tasks)
    from feature_store.spark.session import spark_context

    spark = spark_context(settings.spark_master, settings.spark_memory, ctx.paths.tmp)
    return run_tasks(spark, function, tasks)


def by_bucket(
    ctx: RunContext,
    function: Callable[[T], BucketResult],
    tasks_of: Callable[[RunContext, Entity, Layout], list[T]],
    *,
    reads: Callable[[Upstream, Entity], Table],
    writes: Callable[[Upstream, Entity], Table],
    numbers: Callable[[list[BucketResult]], dict[str, int]],
) -> Outcome:
    """Make a table of every entity of the upstream from another, a task per bucket.

    Args:
        reads: the table whose layout the new one has.
        numbers: what a step counts of the buckets of an entity, as `num_<name>_<entity>`.

    Raises:
        MissingInput: what it reads is not there.
        SpaceMismatch: the buckets of a table do not all live in one space.
    """
    upstream, entities = ctx.own_upstream, ctx.own_entities
    layouts = {e: ctx.lake.layout(reads(upstream, e).name) for e in entities}
    tasks = [task for e in entities for task in tasks_of(ctx, e, layouts[e])]
    results, timings = run_timed(ctx, function, tasks)
    outputs = commit_buckets(ctx, writes, results, layouts, timings)
    metrics: Metrics = {
        f"num_{name}_{e}": number
        for e in entities
        for name, number in numbers([r for r in results if r.entity == e]).items()
    }
    return Outcome(outputs=outputs, metrics=metrics, timings=timings)


def engine_of(settings: Settings, tasks: Sequence[BucketTask]) -> Literal["local", "spark"]:
    """Where tasks run: what DERM_ENGINE says, or by the size of what they read."""
    if settings.engine != "auto":
        return settings.engine
    return "local" if bytes_read(tasks) <= LOCAL_BYTES else "spark"


def stop_engine() -> None:
    """End the process's Spark, if it has one: the process may live on for long."""
    if session := sys.modules.get("feature_store.spark.session"):
        session.stop_spark()


def run_timed(
    ctx: RunContext, function: Callable[[T], BucketResult], tasks: Sequence[T]
) -> tuple[list[BucketResult], dict[str, float]]:
    """Run one task per bucket; results in the order of `tasks`, and seconds by phase."""
    clock = time.perf_counter()
    results = run_bucket_tasks(ctx, function, tasks)
    return results, {"buckets": round(time.perf_counter() - clock, 3)}


def commit_buckets(
    ctx: RunContext,
    declare: Callable[[Upstream, Entity], Table],
    results: Sequence[BucketResult],
    layouts: dict[Entity, Layout],
    timings: dict[str, float],
) -> tuple[Artifact, ...]:
    """Make the staged buckets of every entity type visible, a transaction per table.

    Raises:
        SpaceMismatch: the buckets of a table do not all live in one space.
        CommitConflict: another writer was faster; nothing of this attempt is visible.
    """
    upstream, clock = ctx.own_upstream, time.perf_counter()
    artifacts = []
    for entity in ctx.own_entities:
        mine = [r for r in results if r.entity == entity]
        table = declare(upstream, entity)
        spaces = sorted({space for r in mine for space in r.spaces})
        if len(spaces) > 1:
            raise SpaceMismatch(
                f"{table.name} of {ctx.ds} would hold vectors of several spaces",
                expected="one space",
                found=" and ".join(spaces),
            )
        properties = Layout(dim=layouts[entity].dim, buckets=layouts[entity].buckets).properties()
        artifacts.append(
            ctx.lake.commit(table, ctx.ds, [r.file for r in mine], properties=properties)
        )
    timings["commit"] = round(time.perf_counter() - clock, 3)
    return tuple(artifacts)
