"""Merge: today's pool from yesterday's pool and today's daily embeddings; carry over, prune.

Reads `embeddings/{u}/{e}/pool` of the day before and `embeddings/{u}/{e}/daily`, writes
`embeddings/{u}/{e}/pool`, a task per bucket of users and of Pins. Grain: one row per entity active
within the last `inactive_days`. The pipeline's first day starts from an empty pool.
"""

from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.base import Entity, shift_day
from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.lake.layout import Layout
from feature_store.spark.aggregation import BucketResult, MergeTask, merge_bucket
from jobs.engine.context import Outcome, RunContext
from jobs.steps.aggregation import by_bucket


def run(ctx: RunContext) -> Outcome:
    """Merge one day into the pool.

    Raises:
        MissingInput: daily, or yesterday's pool, is not there.
        SpaceMismatch: daily and pool live in different embedding spaces.
    """
    return by_bucket(
        ctx, merge_bucket, _tasks, reads=daily_table, writes=pool_table, numbers=_numbers
    )


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


def _numbers(results: list[BucketResult]) -> dict[str, int]:
    counted = {
        field: sum(getattr(r.counts, field) for r in results)
        for field in ("updated", "new", "carried", "pruned")
    }
    return {**counted, "pool": sum(r.file.rows for r in results)}
