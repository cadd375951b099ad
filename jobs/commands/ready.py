"""`derm ready`: whether the source of a day is whole; exit code 4 while it is not.

What the task `wait` asks in Airflow, and any other scheduler may ask. The files that the day is
named after must be there, each with its footer (a file that is being written has none), and what
the data set declares under `[ready]`. What they hold is for `derm ingest` to judge.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import exits, recipes
from jobs.console import day, out
from jobs.datasets import readiness
from jobs.datasets.readiness import Readiness
from jobs.datasets.registry import open_adapter
from jobs.engine import skips
from jobs.settings import Home, Settings
from simulator.market.config import WORLDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm ready`."""
    parser.add_argument("--ds", required=True, type=day, help="the day, YYYY-MM-DD")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Say whether the day is whole, and what is waited for.

    Raises:
        InputError: the data set, its declaration or its folder is wrong.
    """
    home = Home.load(settings.home)
    lacking = tuple(_lacking(home, settings, args.ds))
    if args.json:
        out(json.dumps({"ds": args.ds, "ready": not lacking, "waiting_for": lacking}))
    elif lacking:
        out(f"{args.ds} is not whole yet; waiting for")
        for what in lacking:
            out(f"  {what}")
        out(f"if it will never come: {skips.command(args.ds)}")
    else:
        out(f"{args.ds} is whole")
    return exits.TOO_EARLY if lacking else 0


def _lacking(home: Home, settings: Settings, ds: str) -> Iterator[str]:
    """What is waited for."""
    if home.dataset in WORLDS or skips.load(settings.home, ds):
        return
    wanted = readiness.declared(home.dataset) or Readiness()
    simulation = recipes.recipe(home.recipe).simulation
    adapter = open_adapter(home.dataset, home.source, settings.home, simulation)
    folder = Path(home.source) if home.source else Path(home.dataset).parent
    if wanted.marker:
        marker = folder / wanted.marker.replace("{ds}", ds)
        if not marker.exists():
            yield f"the marker {marker}"
    events, *others = adapter.files(ds)
    yield from _of_file(events, wanted.min_events)
    for file in others:
        yield from _of_file(file, 0)


def _of_file(path: Path, rows: int) -> Iterator[str]:
    if not path.is_file():
        yield f"the file {path}"
        return
    if path.suffix not in (".parquet", ".pq"):
        return
    try:
        found = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        yield f"the footer of {path}, which is still being written or is cut short"
        return
    if found < rows:
        yield f"{rows} rows in {path}, which has {found}"
