"""Count: impressions and positives of every user and Pin, in windows that end with the day.

Reads the day's events and the counts of earlier days, writes `counts/{e}`. Grain: one row per
entity with an event in the longest window. Training and inference read the counts of the day
before, so that no example knows its own outcome.

A conversion counts on the day it arrives on. Windows move on by adding the day and subtracting the
one that leaves, so a day that is counted again and differs takes the record of every later count
with it: they have to be made again before the pipeline goes on.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from feature_store.contracts.base import ENTITIES, Entity, shift_day
from feature_store.contracts.datasets import WINDOWS, counts_name
from feature_store.contracts.manifests import Metrics
from feature_store.lake.layout import Layout
from feature_store.lake.staging import StagedFile, combined_digest
from feature_store.lake.storage import open_parquet
from feature_store.spark.counting import CountTask, DivideTask, count_bucket, divide_events
from feature_store.spark.tasks import BucketTask
from jobs.engine.context import Outcome, RunContext
from jobs.engine.scratch import scratch_folder
from jobs.steps.aggregation import run_bucket_tasks

T = TypeVar("T", bound=BucketTask)
R = TypeVar("R")


class RunTasks(Protocol):
    """Something that runs a function on every task and returns the results in order."""

    def __call__(self, function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
        """Run them."""
        ...


def run(ctx: RunContext) -> Outcome:
    """Count the day, here or on Spark.

    Raises:
        MissingInput: events, or the counts of an earlier day, are not there.
        ContractViolation: a table is laid out differently, or earlier counts do not fit together.
    """
    return count_day(ctx, functools.partial(run_bucket_tasks, ctx))


def count_day(ctx: RunContext, run_tasks: RunTasks) -> Outcome:
    """Count the day; `run_tasks` says where."""
    layouts = {e: _layout(ctx, e) for e in ENTITIES}
    with scratch_folder(ctx.root, "count") as folder:
        parts = run_tasks(divide_events, _divisions(ctx, layouts, folder))
        by_entity = {e: tuple(part[e] for part in parts) for e in ENTITIES}
        tasks = [t for e in ENTITIES for t in _tasks(ctx, e, layouts[e].buckets, by_entity[e])]
        files = run_tasks(count_bucket, tasks)
    staged = {e: [f for f, t in zip(files, tasks, strict=True) if t.entity == e] for e in ENTITIES}
    if any(_differs(ctx, e, staged[e]) for e in ENTITIES):
        _forget_later(ctx)
    outputs = tuple(
        ctx.lake.commit(
            ctx.spec.counts_table(e), ctx.ds, staged[e], properties=layouts[e].properties()
        )
        for e in ENTITIES
    )
    metrics: Metrics = {f"num_counted_{e}": a.rows for e, a in zip(ENTITIES, outputs, strict=True)}
    return Outcome(outputs=outputs, metrics=metrics)


def _layout(ctx: RunContext, entity: Entity) -> Layout:
    """The layout that the recipe asks for.

    Raises:
        ContractViolation: the table has another one.
    """
    name, number = counts_name(entity), len(WINDOWS) * len(ctx.spec.counted)
    wanted = Layout(dim=number, buckets=ctx.recipe.layout.buckets(entity), dtype="int32")
    if ctx.lake.exists(name):
        wanted.check(ctx.lake.layout(name), name)
    return wanted


def _divisions(ctx: RunContext, layouts: dict[Entity, Layout], folder: Path) -> list[DivideTask]:
    return [
        DivideTask(
            spec=ctx.spec,
            file=file,
            group=group,
            buckets={e: layout.buckets for e, layout in layouts.items()},
            folder=folder,
        )
        for file in ctx.lake.files(ctx.spec.events_table().name, ctx.ds)
        for group in range(_row_groups(file))
    ]


def _row_groups(file: str) -> int:
    with open_parquet(file) as parquet:
        groups: int = parquet.num_row_groups
        return groups


def _tasks(
    ctx: RunContext, entity: Entity, buckets: int, parts: tuple[str, ...]
) -> list[CountTask]:
    earlier = [_files_before(ctx, entity, days) for days in (1, *WINDOWS[1:])]
    return [
        CountTask(
            root=ctx.lake.root,
            spec=ctx.spec,
            entity=entity,
            ds=ctx.ds,
            bucket=bucket,
            parts=parts,
            past=earlier[0].get(bucket, ()),
            leaving=tuple(files.get(bucket, ()) for files in earlier[1:]),
        )
        for bucket in range(buckets)
    ]


def _files_before(ctx: RunContext, entity: Entity, days: int) -> dict[int, tuple[str, ...]]:
    """The counts of some days before, by bucket; none where there were no events yet."""
    ds = shift_day(ctx.ds, -days)
    if ds < ctx.home.first_ds:
        return {}
    return ctx.lake.bucket_files(counts_name(entity), ds)


def _differs(ctx: RunContext, entity: Entity, staged: Sequence[StagedFile]) -> bool:
    """Whether the day was counted before, with another result."""
    name = counts_name(entity)
    if ctx.ds not in ctx.lake.days(name):
        return False
    digest = combined_digest((f.bucket, f.rows, f.digest) for f in staged)
    return ctx.lake.artifact(name, ctx.ds).digest != digest


def _forget_later(ctx: RunContext) -> None:
    """Let every later day be counted again: its windows hold the day as it was."""
    for ds in ctx.manifests.days():
        if ds > ctx.ds:
            ctx.manifests.remove("count", ds, None)
