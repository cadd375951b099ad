"""Verify: is the new pool fit to be published?

Reads today's and yesterday's pool and the day's events, bucket by bucket, without Spark; writes no
table. Every number is a metric of the manifest, so the report and the Airflow page can plot it.

Source: SPEC of the aggregation (coverage against yesterday's store, day-to-day and intra-day
cosine); effective rank: Roy and Vetterli, 2007.
"""

from feature_store.contracts.base import ENTITIES, Entity, shift_day
from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Artifact, Metrics
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.embeddings.stability import (
    BucketStats,
    coverage,
    effective_rank,
    measure_bucket,
    summarise,
)
from feature_store.lake.filing import impressions
from feature_store.lake.staging import read_files
from jobs.engine.context import Outcome, RunContext
from jobs.engine.digest import content_digest
from jobs.recipes import GuardConfig
from jobs.steps.aggregation import layout_of

_SAMPLE = 4096


def run(ctx: RunContext) -> Outcome:
    """Measure the pool and hold it against the guards.

    Raises:
        GuardFailed: a number breaks its bound; it names the number, the bound and both values.
    """
    upstream = ctx.own_upstream
    metrics: Metrics = {}
    for entity in ENTITIES:
        metrics |= _measure(ctx, entity)
    check_guards(metrics, ctx.recipe.guards, upstream)
    pools = [ctx.artifact(f"lake:{pool_table(upstream, e).name}") for e in ENTITIES]
    verified = Artifact(
        name=f"verified:{upstream}",
        ds=ctx.ds,
        digest=content_digest(*(p.digest for p in pools)),
        rows=sum(p.rows for p in pools),
    )
    return Outcome(outputs=(verified,), metrics=metrics)


def check_guards(metrics: Metrics, guards: GuardConfig, upstream: str) -> None:
    """Hold measured numbers against their bounds; a number that is not there breaks none.

    Raises:
        GuardFailed: it names every number that broke its bound.
    """
    broken = []
    for entity in ENTITIES:
        floors = {
            f"coverage_rows_{entity}": guards.min_coverage,
            f"coverage_entities_{entity}": guards.min_coverage,
            f"cosine_{entity}": guards.min_day_to_day_cosine,
            f"cosine_updated_{entity}": guards.min_day_to_day_cosine,
            f"effective_rank_{entity}": guards.min_effective_rank,
            f"pool_ratio_{entity}": 1.0 - guards.max_pool_shrink,
        }
        for name, floor in floors.items():
            value = metrics.get(name)
            # A comparison with NaN is false, so it is turned round: NaN must break the bound.
            if isinstance(value, int | float) and not value >= floor:
                broken.append(f"{name} {value:.4g} < {floor:.4g}")
    if broken:
        raise GuardFailed(
            f"the {upstream} pool is not fit to be published",
            expected="every number at or above its bound (recipe.guards)",
            found="; ".join(broken),
            hint="derm status shows the days before; readers keep what is published",
        )


def _measure(ctx: RunContext, entity: Entity) -> Metrics:
    """All numbers of one entity type, named `<metric>_<entity>`."""
    upstream = ctx.own_upstream
    pool, daily = pool_table(upstream, entity), daily_table(upstream, entity)
    dim = layout_of(ctx.lake, pool.name).dim
    previous = ctx.previous(f"lake:{pool.name}")
    today = ctx.lake.bucket_files(pool.name, ctx.ds)
    before = ctx.lake.bucket_files(pool.name, shift_day(ctx.ds, -1)) if previous else {}
    share = max(1, _SAMPLE // len(today))
    buckets: list[BucketStats] = [
        measure_bucket(
            read_files(files, pool),
            read_files(before.get(bucket, ()), pool),
            ds=ctx.ds,
            dim=dim,
            sample=share,
        )
        for bucket, files in today.items()
    ]
    metrics = summarise(buckets)
    metrics["effective_rank"] = effective_rank([b.sample for b in buckets])
    metrics["intraday_cosine"] = _intraday(ctx, daily.name, entity)
    rows, entities = _coverage(ctx, entity, before)
    metrics["coverage_rows"], metrics["coverage_entities"] = rows, entities
    return {f"{name}_{entity}": value for name, value in metrics.items()}


def _intraday(ctx: RunContext, name: str, entity: Entity) -> float | None:
    """Mean cosine of the first and last embedding of the day, where there were several."""
    upstream = ctx.own_upstream
    table = daily_table(upstream, entity)
    total, count = 0.0, 0
    for files in ctx.lake.bucket_files(name, ctx.ds).values():
        column = read_files(files, table, ["intraday_cosine"])["intraday_cosine"].drop_null()
        total, count = total + float(column.to_numpy().sum(dtype="f8")), count + len(column)
    return total / count if count else None


def _coverage(
    ctx: RunContext, entity: Entity, before: dict[int, tuple[str, ...]]
) -> tuple[float | None, float | None]:
    """Share of today's impressions, and of their distinct entities, that yesterday's pool knows."""
    upstream = ctx.own_upstream
    if not before:
        return None, None
    columns = [f"{entity}_id", "arrived_at"]
    events = impressions(ctx.lake.read(ctx.spec.events_table(), ctx.ds, columns=columns))
    pool = pool_table(upstream, entity)
    ids = (read_files(files, pool, ["entity_id"])["entity_id"] for files in before.values())
    return coverage(events[f"{entity}_id"], ids)
