"""Verify: is the new pool fit to be published?

Reads today's and yesterday's pool and the day's events, bucket by bucket, without Spark; writes no
table. Every number is a metric of the manifest, so the report and the Airflow page can plot it.

What each number means, and why these: docs/aggregation.md. Source of the effective rank: Roy and
Vetterli, 2007, "The effective rank: a measure of effective dimensionality".
"""

from collections.abc import Iterator

from feature_store.contracts.artifacts import Pool, Verified, in_lake
from feature_store.contracts.base import Entity, shift_day
from feature_store.contracts.bounds import Check
from feature_store.contracts.digests import content_digest
from feature_store.contracts.manifests import Artifact, Metrics
from feature_store.contracts.tables import daily_table, pool_table
from feature_store.embeddings.noise import lowered, rank_bound, share_error
from feature_store.embeddings.stability import (
    BucketStats,
    coverage,
    measure_bucket,
    pooled_effective_rank,
    summarise,
)
from feature_store.lake.filing import impressions
from feature_store.lake.staging import read_files
from jobs.engine.context import Outcome, RunContext
from jobs.engine.guards import hold
from jobs.recipes import GuardConfig

_SAMPLE = 4096


def run(ctx: RunContext) -> Outcome:
    """Measure the pool and hold it against the guards.

    Raises:
        GuardFailed: a number breaks its bound; it names the number, the bound and both values.
    """
    upstream = ctx.own_upstream
    metrics: Metrics = {}
    checks: list[Check] = []
    for entity in ctx.own_entities:
        metrics |= _measure(ctx, entity)
        dim = ctx.lake.layout(pool_table(upstream, entity).name).dim
        checks += checks_of(metrics, ctx.recipe.guards, entity, dim)
    what = f"the {upstream} pool is not fit to be published"
    used = hold(ctx.root, "verify", ctx.ds, upstream, checks, what)
    metrics |= {_bound_name(c.number): c.bound for c in checks}
    pools = [ctx.artifact(Pool(upstream, e)) for e in ctx.own_entities]
    verified = Artifact(
        name=Verified(upstream),
        ds=ctx.ds,
        digest=content_digest(*(p.digest for p in pools)),
        rows=sum(p.rows for p in pools),
    )
    return Outcome(outputs=(verified,), metrics=metrics, accepted=used)


def checks_of(metrics: Metrics, guards: GuardConfig, entity: Entity, dim: int) -> Iterator[Check]:
    """The numbers of one entity type and their bounds, which know how many it was measured on."""

    def number(name: str) -> float | None:
        value = metrics.get(f"{name}_{entity}")
        return float(value) if isinstance(value, int | float) else None

    def check(name: str, bound: float | None) -> Check:
        return Check(number=f"{name}_{entity}", found=number(name), bound=bound)

    for name, floor in (
        ("coverage_rows", guards.min_coverage),
        ("coverage_entities", guards.min_coverage),
        ("cosine", guards.min_day_to_day_cosine),
        ("cosine_updated", guards.min_day_to_day_cosine),
    ):
        yield check(name, lowered(floor, number(f"{name}_se")))
    sampled, before = (int(number(name) or 0) for name in ("sampled", "before"))
    yield check("effective_rank", rank_bound(guards.min_effective_rank, sampled, dim))
    kept = 1.0 - guards.max_pool_shrink
    least = lowered(kept, share_error(before, kept)) if before else None
    yield check("pool", None if least is None else before * least)


def _bound_name(number: str) -> str:
    """The metric that records the bound of a number: `cosine_user` has `cosine_bound_user`."""
    name, _, entity = number.rpartition("_")
    return f"{name}_bound_{entity}"


def _measure(ctx: RunContext, entity: Entity) -> Metrics:
    """All numbers of one entity type, named `<metric>_<entity>`."""
    upstream = ctx.own_upstream
    pool, daily = pool_table(upstream, entity), daily_table(upstream, entity)
    dim = ctx.lake.layout(pool.name).dim
    previous = ctx.previous(in_lake(pool.name))
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
    metrics["before"] = sum(b.before for b in buckets)
    metrics["sampled"] = sum(len(b.sample) for b in buckets)
    metrics["effective_rank"] = pooled_effective_rank([b.sample for b in buckets])
    metrics["intraday_cosine"] = _intraday(ctx, daily.name, entity)
    metrics |= _coverage(ctx, entity, before)
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


def _coverage(ctx: RunContext, entity: Entity, before: dict[int, tuple[str, ...]]) -> Metrics:
    """Share of today's impressions, and of their distinct entities, that yesterday's pool knows."""
    upstream = ctx.own_upstream
    if not before:
        return dict.fromkeys(("coverage_rows", "coverage_entities"))
    columns = [f"{entity}_id", "arrived_at"]
    events = impressions(ctx.lake.read(ctx.spec.events_table(), ctx.ds, columns=columns))
    pool = pool_table(upstream, entity)
    ids = (read_files(files, pool, ["entity_id"])["entity_id"] for files in before.values())
    return coverage(events[f"{entity}_id"], ids)
