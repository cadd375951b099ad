"""`derm rank`: every step of every ranker for a day, and for days before it that do not hold.

A ranker learns a day after the other. So where an earlier day was repaired, or never ranked, the
days from that one on are made again first; one that holds is skipped. It goes as far back as pools
are kept. A ranker that is refused does not hold up the others.
"""

import argparse
import logging

from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import DermError, InputError
from jobs.console import day
from jobs.engine import locks
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context, run_step
from jobs.engine.staleness import standings
from jobs.engine.step_command import show
from jobs.settings import Settings

log = logging.getLogger("derm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm rank`."""
    parser.add_argument("--ds", required=True, type=day, help="the released day")
    parser.add_argument("--ranker", metavar="NAME", help="one; default: all")
    parser.add_argument(
        "--earlier", action="store_true", help="only the days before it that do not hold"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Rank the days that are due.

    Raises:
        InputError: there is no such ranker, or none at all.
        DermError: a ranker failed or was refused; the first of those.
    """
    ctx = open_context(settings, args.ds)
    names = [r.name for r in ctx.pipeline.rankers]
    if args.ranker:
        names = [ctx.pipeline.ranker(args.ranker).name]
    if not names:
        raise InputError(
            "this home has no ranker",
            where="home.json",
            hint="derm init with the same arguments records those of the recipe",
        )
    failures: list[DermError] = []
    with locks.together(settings.home, args.ds):
        for ranker in names:
            days = due(ctx, ranker)
            try:
                for ds in days[:-1] if args.earlier else days:
                    _rank(args, settings, ctx, ds, ranker)
            except DermError as error:
                log.warning("%s stopped: %s", ranker, error.what)
                failures.append(error)
    if failures:
        raise failures[0]
    return 0


def _rank(
    args: argparse.Namespace, settings: Settings, ctx: RunContext, ds: str, ranker: str
) -> None:
    for step in ctx.pipeline.ranking:
        show(run_step(settings, step, ds, ranker, force=False), as_json=args.json)


def due(ctx: RunContext, ranker: str) -> tuple[str, ...]:
    """The days from the first one that does not hold up to the context's, which is always one."""
    kept = shift_day(ctx.ds, 2 - ctx.recipe.retention.daily_pools)
    first = ctx.pipeline.ranking[0].name
    earlier = (ds for ds in ctx.manifests.days() if ds < ctx.ds)
    ranked = [ds for ds in earlier if ctx.manifests.get(first, ds, ranker)]
    if not ranked:
        return (ctx.ds,)
    days = days_between(max(ranked[0], kept), shift_day(ctx.ds, -1))
    found = standings(ctx, days, ctx.pipeline.ranking)
    open_days = (s.ds for s in found if s.upstream == ranker and s.state != "done")
    return days_between(next(open_days, ctx.ds), ctx.ds)
