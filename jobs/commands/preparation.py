"""What must stand before the first daily run: the home, and the days the first training reads."""

import argparse
from collections.abc import Iterator

from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import InputError
from jobs.commands import init
from jobs.datasets.registry import open_adapter
from jobs.engine import spaces
from jobs.engine.runner import StepResult, run_step
from jobs.pipelines import catalog
from jobs.recipes import recipe_of
from jobs.settings import Home, Settings
from simulator.market.config import SIMULATED


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments that declare a new home; an existing one must agree with them."""
    parser.add_argument(
        "--dataset", metavar="NAME|PATH", help="as for `derm init`; a new home: simulated"
    )
    parser.add_argument("--source", metavar="DIR", help="folder of your own files")
    parser.add_argument("--recipe", help="name of a recipe; default: toy")


def open_home(args: argparse.Namespace, settings: Settings) -> Home:
    """The home that `settings` names, made when it is new.

    Raises:
        InputError: it cannot be made.
    """
    given = {n: v for n in ("dataset", "source", "recipe") if (v := getattr(args, n))}
    if not given and settings.paths.declaration.exists():
        return Home.load(settings.home)
    home = init.make(settings, **{"dataset": SIMULATED, **given})
    init.tell(home, settings)
    return home


def days_to_publish(home: Home, settings: Settings, wanted: int) -> tuple[str, ...]:
    """The first days to publish: as many as wanted, or as there is data of.

    Raises:
        InputError: the data ends before the first day that is published.
    """
    world = recipe_of(home).world(home.dataset)
    last = open_adapter(home.dataset, home.source, settings.home, world).last_day()
    first = spaces.load(settings.home).first_daily(home)
    days = tuple(shift_day(first, i) for i in range(wanted))
    if last is None or days[-1] <= last:
        return days
    if days[0] > last:
        raise InputError(
            "the data ends before the first day that is published",
            expected=f"a first day up to {last}",
            found=first,
            hint=f"use another DERM_HOME: derm init --dataset {home.dataset} --start DAY",
        )
    return tuple(ds for ds in days if ds <= last)


def prepare_history(settings: Settings, home: Home) -> Iterator[StepResult]:
    """Bring the days before the first published one into the lake, a step at a time.

    The process may live on for long: it does not keep the Spark that counted them.

    Raises:
        DermError: a day is missing or breaks its contract.
    """
    for ds in days_between(home.first_ds, shift_day(home.start_ds, -1)):
        for step in catalog.pipeline_of(home).steps:
            if step.history:
                yield run_step(settings, step, ds, None, force=False)
    if home.first_ds < home.start_ds:
        from jobs.steps.aggregation import stop_engine

        stop_engine()
