"""What the model of an upstream is, and what it reads: its family, and pools of other upstreams."""

import dataclasses
from functools import partial

from feature_store.contracts.base import days_between, shift_day
from feature_store.reading.examples import DayExamples
from feature_store.reading.positives import DayPairs, PairDays
from feature_store.reading.readers import Reader
from feature_store.reading.sequences import DaySequences, Source
from jobs.engine.context import RunContext
from jobs.engine.scratch import scratch_folder
from models.protocol import Family, Objective
from models.registry import family


def family_of(ctx: RunContext) -> Family:
    """The family of the step's upstream."""
    found: Family = family(ctx.pipeline.upstream(ctx.own_upstream).family)
    return found


def new_objective(ctx: RunContext) -> Objective:
    """The objective of the step's upstream, with weights drawn from torch's generator."""
    pools = (pool.feature for pool in ctx.pool_inputs)
    return family_of(ctx).objective(ctx.spec, ctx.own_upstream, ctx.own_recipe.model, pools)


def reader(ctx: RunContext, ds: str, *, from_scratch: bool = False) -> Reader:
    """A day as the step's upstream reads it: rows of its events, sequences of timelines, or pairs.

    Args:
        from_scratch: see `examples`.
    """
    if ctx.reads_rows:
        return examples(ctx, ds, from_scratch=from_scratch)
    declared = ctx.pipeline.upstream(ctx.own_upstream)
    begin = max(shift_day(ds, 1 - declared.history_days), ctx.home.first_ds)
    history = days_between(begin, ds)
    if declared.reads == "pairs":
        inputs = family_of(ctx).pairs(ctx.spec, ctx.own_recipe.model)
        # A training from scratch goes through the days of its window one by one.
        days = (ds,) if from_scratch else history
        return DayPairs(PairDays(lake=ctx.lake, spec=ctx.spec, inputs=inputs, days=days))
    source = Source(
        lake=ctx.lake,
        spec=ctx.spec,
        history=history,
        scratch=partial(scratch_folder, ctx.root, declared.reads),
        buckets=ctx.recipe.layout.user_buckets,
    )
    return DaySequences(source, family_of(ctx).sequences(ctx.spec, ctx.own_recipe.model))


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
