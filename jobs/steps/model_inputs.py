"""What the model of an upstream is, and what it reads: its family, and pools of other upstreams."""

import dataclasses
from functools import partial

from feature_store.contracts.base import days_between, shift_day
from feature_store.reading.day_edges import DayEdges
from feature_store.reading.examples import DayExamples
from feature_store.reading.positives import DayPairs, PairDays
from feature_store.reading.readers import Reader
from feature_store.reading.sequences import DaySequences, Source
from jobs.engine.context import RunContext
from jobs.engine.scratch import scratch_folder
from models.protocol import Family, Objective
from models.registry import family as family_named


def family_of(ctx: RunContext) -> Family:
    """The family of the step's upstream."""
    found: Family = family_named(ctx.pipeline.upstream(ctx.own_upstream).family)
    return found


def new_objective(ctx: RunContext) -> Objective:
    """The objective of the step's upstream, with weights drawn from torch's generator."""
    pools = (pool.feature for pool in ctx.pool_inputs)
    return family_of(ctx).objective(ctx.spec, ctx.own_upstream, ctx.own_recipe.model, pools)


def reader(ctx: RunContext, ds: str, *, from_scratch: bool = False) -> Reader:
    """A day as the step's upstream reads it: rows, sequences of timelines, edges, or pairs.

    Args:
        from_scratch: see `examples`.
    """
    if ctx.reads_rows:
        return examples(ctx, ds, from_scratch=from_scratch)
    declared = ctx.pipeline.upstream(ctx.own_upstream)
    family, model = family_of(ctx), ctx.own_recipe.model
    if declared.reads == "edges":
        since = shift_day(ds, -declared.every_days)
        inputs = family.edges(ctx.spec, model)
        return DayEdges(ctx.lake, ds, inputs, since=since, begins=from_scratch)
    begin = max(shift_day(ds, 1 - declared.history_days), ctx.home.first_ds)
    history = days_between(begin, ds)
    if declared.reads == "pairs":
        wanted = family.pairs(ctx.spec, model)
        # A training from scratch goes through the days of its window one by one.
        days = (ds,) if from_scratch else history
        return DayPairs(PairDays(lake=ctx.lake, spec=ctx.spec, inputs=wanted, days=days))
    source = Source(
        lake=ctx.lake,
        spec=ctx.spec,
        history=history,
        scratch=partial(scratch_folder, ctx.root, declared.reads),
        buckets=ctx.recipe.layout.user_buckets,
    )
    return DaySequences(source, family.sequences(ctx.spec, model))


def introduce(objective: Objective, day: Reader) -> None:
    """Let an objective that has a row per node make room for those of a day, to learn from it."""
    if isinstance(day, DayEdges):
        objective.meet(day.graph)


def examples(
    ctx: RunContext, ds: str, *, from_scratch: bool = False, known_by: str = ""
) -> DayExamples:
    """The examples of a day.

    Args:
        known_by: a later day, with whose end its labels are read; the day itself when empty.
        from_scratch: for a training that begins a space: no pool of it stood before any of the days
            of its window, so nobody is known to one.
    """
    pools = ctx.pool_inputs
    if from_scratch:
        pools = tuple(dataclasses.replace(pool, since=ctx.ds) for pool in pools)
    return DayExamples(
        ctx.lake, ctx.spec, ds, ctx.own_upstream, ctx.counting, pools, known_by=known_by
    )
