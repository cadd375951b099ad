"""`derm run`: the catalog in order for a range of days, in one process, without Airflow."""

import argparse

from feature_store.contracts.base import days_between
from feature_store.contracts.errors import InputError
from jobs.console import day
from jobs.engine import locks
from jobs.engine.runner import one_lake, refuse_history, run_step
from jobs.engine.step_command import show
from jobs.pipelines import catalog, daily, tasks
from jobs.pipelines.declarations import Step
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm run`."""
    parser.add_argument("--from", dest="first", required=True, type=day, help="first day")
    parser.add_argument("--to", dest="last", required=True, type=day, help="last day, included")
    parser.add_argument("--steps", help="only these, comma-separated, in catalog order")
    parser.add_argument("--upstream", metavar="NAME", help="only this model")
    parser.add_argument("--force", action="store_true", help="run even if nothing changed")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Run the steps day by day; the first error stops everything.

    Days before the first published one only feed the training: of those, no other step runs.

    Raises:
        InputError: the range is empty, a step is unknown, or no day of the range has it.
    """
    home = Home.load(settings.home)
    if not (days := days_between(args.first, args.last)):
        raise InputError(
            "an empty range", expected="--from <= --to", found=f"{args.first} {args.last}"
        )
    pipeline = catalog.pipeline_of(home)
    steps = _chosen(pipeline.steps, args.steps)
    if args.steps and days[-1] < home.start_ds:
        for step in steps:
            refuse_history(home, step, days[0])
    from_its_gate = any(step.name == tasks.FIRST for step in steps)
    with (
        locks.together(settings.home, days[-1], from_its_gate=from_its_gate),
        one_lake(settings),
    ):
        for ds in days:
            for step in (s for s in steps if s.history or ds >= home.start_ds):
                for upstream in pipeline.upstreams_of(step, args.upstream):
                    result = run_step(settings, step, ds, upstream, force=args.force)
                    show(result, as_json=args.json)
    return 0


def _chosen(steps: tuple[Step, ...], names: str | None) -> tuple[Step, ...]:
    if names is None:
        return steps
    wanted = names.split(",")
    known = [s.name for s in daily.STEPS]
    if unknown := [n for n in wanted if n not in known]:
        raise InputError("unknown steps", expected=" ".join(known), found=" ".join(unknown))
    return tuple(s for s in steps if s.name in wanted)
