"""Dedup: keep the last embedding of the day per entity.

Reads `embeddings/{u}/{e}/raw`, writes `embeddings/{u}/{e}/daily`, a task per bucket of users and of
Pins. Grain: one row per entity seen on the day. Raw rows are already in buckets, so nothing is
shuffled.
"""

from feature_store.contracts.base import Entity
from feature_store.contracts.tables import daily_table, raw_table
from feature_store.lake.layout import Layout
from feature_store.spark.aggregation import BucketResult, DedupTask, dedup_bucket
from jobs.engine.context import Outcome, RunContext
from jobs.steps.aggregation import by_bucket


def run(ctx: RunContext) -> Outcome:
    """Dedup the raw embeddings of a day.

    Raises:
        MissingInput: a raw partition is not there.
        ContractViolation: raw rows are in the wrong bucket, or vectors have the wrong width.
    """
    return by_bucket(
        ctx, dedup_bucket, _tasks, reads=raw_table, writes=daily_table, numbers=_numbers
    )


def _tasks(ctx: RunContext, entity: Entity, layout: Layout) -> list[DedupTask]:
    upstream = ctx.own_upstream
    files = ctx.lake.bucket_files(raw_table(upstream, entity).name, ctx.ds)
    return [
        DedupTask(
            root=ctx.lake.root,
            upstream=upstream,
            entity=entity,
            ds=ctx.ds,
            bucket=bucket,
            layout=layout,
            raw_files=raw_files,
        )
        for bucket, raw_files in files.items()
    ]


def _numbers(results: list[BucketResult]) -> dict[str, int]:
    return {
        "raw": sum(r.rows_read for r in results),
        "daily": sum(r.file.rows for r in results),
    }
