"""Dedup: keep the last embedding of the day per entity.

Reads `embeddings/{u}/{e}/raw`, writes `embeddings/{u}/{e}/daily`, a task per bucket of users and of
Pins. Grain: one row per entity seen on the day. Raw rows are already in buckets, so nothing is
shuffled.
"""

from collections.abc import Sequence

from feature_store.contracts.base import Entity
from feature_store.contracts.manifests import Metrics
from feature_store.contracts.tables import daily_table, raw_table
from feature_store.lake.layout import Layout
from feature_store.spark.aggregation import BucketResult, DedupTask, dedup_bucket
from jobs.engine.context import Outcome, RunContext
from jobs.steps.aggregation import commit_buckets, run_timed


def run(ctx: RunContext) -> Outcome:
    """Dedup the raw embeddings of a day.

    Raises:
        MissingInput: a raw partition is not there.
        ContractViolation: raw rows are in the wrong bucket, or vectors have the wrong width.
    """
    upstream = ctx.own_upstream
    layouts = {e: ctx.lake.layout(raw_table(upstream, e).name) for e in ctx.own_entities}
    tasks = [task for e in ctx.own_entities for task in _tasks(ctx, e, layouts[e])]
    results, timings = run_timed(ctx, dedup_bucket, tasks)
    outputs = commit_buckets(ctx, daily_table, results, layouts, timings)
    return Outcome(outputs=outputs, metrics=_metrics(ctx.own_entities, results), timings=timings)


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


def _metrics(entities: Sequence[Entity], results: list[BucketResult]) -> Metrics:
    metrics: Metrics = {}
    for entity in entities:
        mine = [r for r in results if r.entity == entity]
        metrics[f"num_raw_{entity}"] = sum(r.rows_read for r in mine)
        metrics[f"num_daily_{entity}"] = sum(r.file.rows for r in mine)
    return metrics
