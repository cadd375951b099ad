"""`derm rank`: every step of every ranker for a day, and for days before it that do not hold."""

import argparse
import json

from feature_store.contracts.errors import InputError
from jobs.console import day, out
from jobs.engine import locks, ranking
from jobs.engine.runner import open_context
from jobs.engine.step_command import show
from jobs.pipelines import catalog
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm rank`."""
    parser.add_argument("--ds", required=True, type=day, help="the released day")
    parser.add_argument("--ranker", metavar="NAME", help="one; default: all")
    parser.add_argument(
        "--rollback",
        action="store_true",
        help="make the newest export of a day before --ds current again, and rank nothing",
    )
    parser.add_argument(
        "--earlier", action="store_true", help="only the days before it that do not hold"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Rank the days that are due; a ranker that is refused does not hold up the others.

    Raises:
        InputError: there is no such ranker, or none at all.
        DermError: a ranker failed or was refused; the first of those.
    """
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    names = tuple(r.name for r in pipeline.rankers)
    if args.ranker:
        names = (pipeline.ranker(args.ranker).name,)
    if not names:
        raise InputError(
            "this home has no ranker",
            where="home.json",
            hint="derm init with the same arguments records those of the recipe",
        )
    if args.rollback:
        return _revert(args, settings, names)
    with locks.together(settings.home, args.ds):
        failures = ranking.rank(
            settings,
            args.ds,
            names,
            lambda result: show(result, as_json=args.json),
            earlier=args.earlier,
        )
    if failures:
        raise failures[0]
    return 0


def _revert(args: argparse.Namespace, settings: Settings, names: tuple[str, ...]) -> int:
    with locks.together(settings.home, args.ds):
        ctx = open_context(settings, args.ds)
        current = {name: ranking.revert(ctx, name) for name in names}
    if args.json:
        out(json.dumps({"current": current}))
    else:
        out("\n".join(f"{name}: {export}" for name, export in current.items()))
    return 0
