"""Merge: today's pool from yesterday's pool and today's daily embeddings; carry over, prune.

Reads `embeddings/{u}/{e}/pool` of the day before and `embeddings/{u}/{e}/daily`, writes
`embeddings/{u}/{e}/pool`, a task per bucket of users and of Pins. Grain: one row per entity active
within the last `inactive_days`. The pipeline's first day starts from an empty pool.
"""

from collections.abc import Sequence

from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.base import Entity, shift_day
from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.manifests import Metrics
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.lake.layout import Layout
from feature_store.spark.aggregation import BucketResult, MergeTask, merge_bucket
from jobs.engine.context import Outcome, RunContext
from jobs.steps.aggregation import commit_buckets, run_timed


def run(ctx: RunContext) -> Outcome:
    """Merge one day into the pool.

    Raises:
        MissingInput: daily, or yesterday's pool, is not there.
        SpaceMismatch: daily and pool live in different embedding spaces.
    """
    upstream = ctx.own_upstream
    layouts = {e: ctx.lake.layout(daily_table(upstream, e).name) for e in ctx.own_entities}
    tasks = [task for e in ctx.own_entities for task in _tasks(ctx, e, layouts[e])]
    results, timings = run_timed(ctx, merge_bucket, tasks)
    outputs = commit_buckets(ctx, pool_table, results, layouts, timings)
    return Outcome(outputs=outputs, metrics=_metrics(ctx.own_entities, results), timings=timings)


def _tasks(ctx: RunContext, entity: Entity, layout: Layout) -> list[MergeTask]:
    upstream = ctx.own_upstream
    daily_files = ctx.lake.bucket_files(daily_table(upstream, entity).name, ctx.ds)
    pool_files = _yesterday(ctx, entity, layout)
    return [
        MergeTask(
            root=ctx.lake.root,
            upstream=upstream,
            entity=entity,
            ds=ctx.ds,
            bucket=bucket,
            layout=layout,
            config=ctx.own_recipe.aggregation,
            pool_files=pool_files.get(bucket, ()),
            daily_files=files,
        )
        for bucket, files in daily_files.items()
    ]


def _yesterday(ctx: RunContext, entity: Entity, layout: Layout) -> dict[int, tuple[str, ...]]:
    """The files of yesterday's pool by bucket; none on the first day.

    Raises:
        ContractViolation: the pool is laid out differently from the day.
    """
    upstream = ctx.own_upstream
    name = pool_table(upstream, entity).name
    if ctx.previous(in_lake(name)) is None:
        return {}
    if (found := ctx.lake.layout(name)) != layout:
        raise ContractViolation(
            f"{name} is laid out differently from the day's embeddings",
            expected=str(layout),
            found=str(found),
            hint="derm rebucket",
        )
    return ctx.lake.bucket_files(name, shift_day(ctx.ds, -1))


def _metrics(entities: Sequence[Entity], results: list[BucketResult]) -> Metrics:
    metrics: Metrics = {}
    for entity in entities:
        mine = [r for r in results if r.entity == entity]
        for field in ("updated", "new", "carried", "pruned"):
            metrics[f"num_{field}_{entity}"] = sum(getattr(r.counts, field) for r in mine)
        metrics[f"num_pool_{entity}"] = sum(r.file.rows for r in mine)
    return metrics
