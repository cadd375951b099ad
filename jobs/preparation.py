"""What must stand before the first daily run: the home, and the days the first training reads."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from feature_store.contracts.base import days_between, shift_day
from jobs import catalog, cli
from jobs.runner import StepResult, run_step
from jobs.settings import Home, Settings

# Days before the first published one only feed the first training.
HISTORY_STEPS = ("simulate", "ingest", "validate")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments that declare a new home; an existing one must agree with them."""
    parser.add_argument("--dataset", help="simulated, kuairand, movielens, trivago, or a file")
    parser.add_argument("--source", type=Path, help="folder of your own files")
    parser.add_argument("--recipe", help="name of a recipe")


def open_home(args: argparse.Namespace, settings: Settings) -> Home:
    """The home that `settings` names, made when it is new.

    Raises:
        SystemExit: it cannot be made; `derm init` said why.
    """
    source = args.source and args.source.resolve()
    given = {"dataset": args.dataset, "source": source, "recipe": args.recipe}
    flags = [word for name, value in given.items() if value for word in (f"--{name}", str(value))]
    if flags or not (settings.home / "home.json").exists():
        code = cli.main(["init", *flags])
        if code:
            raise SystemExit(code)
    return Home.load(settings.home)


def prepare_history(settings: Settings, home: Home) -> Iterator[StepResult]:
    """Bring the days before the first published one into the lake, a step at a time.

    Raises:
        DermError: a day is missing or breaks its contract.
    """
    for ds in days_between(home.first_ds, shift_day(home.start_ds, -1)):
        for step in catalog.steps_for(home.dataset):
            if step.name in HISTORY_STEPS:
                yield run_step(settings, step, ds, None, force=False)
