"""Bringing rankers up to a day: it, and the days before it that do not hold any more.

A ranker learns a day after the other. So where an earlier day was repaired, or never ranked, the
days from that one on are made again first; one that holds is skipped. It goes as far back as pools
are kept.
"""

import logging
from collections.abc import Callable

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import DermError, MissingInput
from feature_store.contracts.rankers import Ranker
from jobs.engine.context import RunContext
from jobs.engine.runner import StepResult, open_context, run_step
from jobs.engine.staleness import standings
from jobs.settings import Settings

log = logging.getLogger("derm")


def due(ctx: RunContext, ranker: Ranker) -> tuple[str, ...]:
    """The days from the first one that does not hold up to the context's, which is always one."""
    kept = shift_day(ctx.ds, 2 - ctx.recipe.retention.daily_pools)
    first = ctx.pipeline.ranking[0].name
    earlier = (ds for ds in ctx.manifests.days() if ds < ctx.ds)
    ranked = [ds for ds in earlier if ctx.manifests.get(first, ds, ranker)]
    if not ranked:
        return (ctx.ds,)
    days = days_between(max(ranked[0], kept), shift_day(ctx.ds, -1))
    found = standings(ctx, days, ctx.pipeline.ranking)
    broken = (s.ds for s in found if s.upstream == ranker and s.state != "done")
    return days_between(next(broken, ctx.ds), ctx.ds)


def rank(
    settings: Settings,
    ds: str,
    rankers: tuple[Ranker, ...],
    report: Callable[[StepResult], None],
    *,
    earlier: bool = False,
) -> tuple[DermError, ...]:
    """Bring rankers up to a day. One that fails or is refused does not hold up the others.

    Args:
        earlier: only the days before it that do not hold.

    Returns:
        What stopped each of those that stopped.
    """
    ctx, failures = open_context(settings, ds), []
    for ranker in rankers:
        days = due(ctx, ranker)
        try:
            for day in days[:-1] if earlier else days:
                for step in ctx.pipeline.ranking:
                    report(run_step(settings, step, day, ranker, force=False))
        except DermError as error:
            log.warning("%s stopped: %s", ranker, error.what)
            failures.append(error)
    return tuple(failures)


def revert(ctx: RunContext, ranker: Ranker) -> str:
    """Make the newest export of a day before the context's current again; the next day moves on.

    Returns:
        Its name.

    Raises:
        MissingInput: there is none any more.
    """
    last, pointer = ctx.pipeline.ranking[-1].name, ctx.paths.ranker_pointer(ranker)
    for ds in sorted((d for d in ctx.manifests.days() if d < ctx.ds), reverse=True):
        recorded = ctx.manifests.get(last, ds, ranker)
        named = str(recorded.metrics["export"]) if recorded else ""
        if named and (pointer.parent / named).is_dir():
            write_atomic(pointer, named + "\n")
            return named
    raise MissingInput(
        f"ranker {ranker} has no export of a day before {ctx.ds}",
        where=str(pointer.parent),
        expected="the folder of an export",
        hint="retention keeps them as long as pools",
    )


def repair(settings: Settings, ds: str, report: Callable[[StepResult], None]) -> None:
    """After days were repaired: make again what rankers learned of them. Nothing waits for it.

    Args:
        ds: the last day that was repaired.
    """
    ctx = open_context(settings, ds)
    last = ctx.pipeline.ranking[-1].name
    names = (r.name for r in ctx.pipeline.rankers)
    ranked = tuple(name for name in names if ctx.manifests.get(last, ds, name))
    for error in rank(settings, ds, ranked, report):
        log.warning("the days are repaired, a ranker is not: %s", error)
