"""Assemble: what a ranker's day is joined with, written down and checked; nothing is copied.

Reads the events, users and Pins of the day, the counts before it, and the pools of the day before.
Vectors never enter rows: training looks them up a batch at a time, by the row of their entity. So
all that is made here is a record, which changes when any of that does.
"""

import math

from feature_store.contracts.artifacts import Assembled, Events, Pool
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.manifests import Artifact, Metrics
from jobs.engine.context import Outcome, RunContext
from jobs.engine.runner import resolve_inputs
from jobs.pipelines import catalog
from jobs.ranking import reading


def run(ctx: RunContext) -> Outcome:
    """Write down what the day is joined with.

    Raises:
        MissingInput: a pool, the counts or a table is not there.
        ContractViolation: a pool holds vectors of another width than is declared.
    """
    inputs = resolve_inputs(ctx, catalog.step("assemble"))
    joined = [a for a in inputs if isinstance(a.reference, Pool)]
    for pool in reading.pools(ctx):
        table = Pool(pool.upstream, pool.entity).table
        if any(a.table == table for a in joined):
            _check_width(ctx, table, pool.dim)
    events = ctx.artifact(Events())
    spaces = reading.spaces(ctx)
    artifact = Artifact(
        name=Assembled(ctx.own_ranker.name),
        ds=ctx.ds,
        digest=content_digest(
            *(f"{a.name}:{a.ds}:{a.digest}" for a in inputs),
            *(f"{name}:{since}" for name, since in spaces.items()),
        ),
        rows=events.rows,
    )
    metrics: Metrics = {
        "rows": events.rows,
        "pools": len(joined),
        "vectors": sum(a.rows for a in joined),
        "joined_day": joined[0].ds if joined else None,
        "spaces": " ".join(f"{name}:{since}" for name, since in spaces.items()),
    }
    return Outcome(outputs=(artifact,), metrics=metrics)


def _check_width(ctx: RunContext, table: str, dim: int) -> None:
    found = int(ctx.lake.properties(table).get("dim", math.nan))
    if found != dim:
        raise ContractViolation(
            f"ranker {ctx.own_ranker.name} expects vectors of another width",
            where=ctx.lake.path(table),
            expected=f"{dim} numbers, as the recipe makes them",
            found=f"{found}",
            hint="vectors of another width begin a new space: derm bootstrap --ds DAY",
        )
