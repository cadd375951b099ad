"""`derm daily`: days of the pipeline through Airflow's own scheduler, from nothing to a report.

Makes the home when it is new, prepares the days before the first published one, starts what the
machine lacks, lets Airflow run the days in order, and stops everything it started. With `--rank`
each release begins a ranking too, as it does where `derm_ranking` is unpaused.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from rich.console import Console

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import DermError
from jobs.commands import follow_ranking, preparation, status
from jobs.engine import locks
from jobs.engine.runner import open_context
from jobs.engine.staleness import standings
from jobs.pipelines import catalog, tasks
from jobs.scheduling import watch
from jobs.services import local
from jobs.services.airflow_api import AirflowApi
from jobs.settings import Home, Settings

DAG_ID = "derm_daily"

_READ_WITHIN_S = 600


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm daily`."""
    preparation.configure(parser)
    parser.add_argument(
        "--days", type=_positive, default=7, help="days to publish, from the home's first (7)"
    )
    parser.add_argument(
        "--rank", action="store_true", help="let the rankers learn the released days, and wait"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Run the days; return 0 when all are published."""
    started = time.monotonic()
    console = Console(highlight=False)
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    local.check_stopped(settings)
    home = preparation.open_home(args, settings)
    days = preparation.days_to_publish(home, settings, args.days)
    settings = settings.model_copy(update={"last_ds": days[-1]})
    console.print(
        f"{home.dataset}, recipe {home.recipe}: {days[0]} to {days[-1]} into {settings.home}"
    )
    prepare(settings, home, console)
    ranked = True
    with _stopped_afterwards(settings, console):
        api = local.start(settings)
        login = f"{api.user} / {api.password}"
        console.print(f"Airflow, while this runs: {api.url}  {login}", soft_wrap=True)
        number = len(tasks.tasks(catalog.pipeline_of(home)))
        with follow_ranking.listening(api) if args.rank else nullcontext():
            with watch.terminal(console, days, number) as display:
                failed = run_days(api, settings, days, display)
            if failed:
                watch.explain(api, DAG_ID, failed, console)
            elif args.rank:
                ranked = follow_ranking.follow(api, settings, days[-1], console)
    status.show(settings)
    if not failed and not ranked:
        sys.stderr.write(f"derm: the days are published, a ranker did not learn {days[-1]}\n")
        return 1
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    if failed:
        sys.stderr.write(f"derm: {failed.run.ds} failed, after {minutes} min {seconds} s\n")
        return 1
    console.print(f"{len(days)} days published in {minutes} min {seconds} s")
    console.print(f"report: {settings.home / 'report' / 'index.html'}", soft_wrap=True)
    return 0


def prepare(settings: Settings, home: Home, console: Console) -> None:
    """Bring the history into the lake, saying what is done."""
    last = shift_day(home.start_ds, -1)
    shared = locks.together(settings.home, last, from_its_gate=True)
    with console.status("history"), shared:
        for result in preparation.prepare_history(settings, home):
            if not result.skipped:
                manifest = result.manifest
                console.print(f"{manifest.ds}  {manifest.step:16} {manifest.duration_s:22.1f} s")


def run_days(
    api: AirflowApi, settings: Settings, days: tuple[str, ...], display: watch.Display
) -> watch.DayView | None:
    """Let the schedule run up to the last day; return the day that failed, if one did."""
    await_dag(api, settings.last_ds)
    _repair(api, settings, days)
    for run in api.runs(DAG_ID):
        if run.ds in days:
            display.before(watch.DayView(run=run, tasks=api.tasks(DAG_ID, run.run_id)))
    api.set_paused(DAG_ID, paused=False)
    try:
        return watch.follow(api, DAG_ID, days, display)
    finally:
        api.set_paused(DAG_ID, paused=True)


def await_dag(api: AirflowApi, last_ds: str) -> None:
    """Wait until Airflow has read the DAG as it is now.

    Raises:
        DermError: it cannot be read.
    """
    deadline = time.monotonic() + _READ_WITHIN_S
    while not api.has_read(DAG_ID, last_ds):
        if (errors := api.import_errors()) or time.monotonic() > deadline:
            raise DermError(
                f"Airflow cannot read {DAG_ID}",
                expected=f"the DAG within {_READ_WITHIN_S} s",
                found="\n".join(errors) or "nothing",
            )
        time.sleep(0.3)


def _repair(api: AirflowApi, settings: Settings, days: tuple[str, ...]) -> None:
    """Let unfinished tasks of an earlier attempt run again, and those whose inputs have changed.

    Airflow has just started: what it remembers as running was cut off when it was stopped.
    """
    for run in api.runs(DAG_ID):
        if run.ds not in days or run.state == "success":
            continue
        for task in api.tasks(DAG_ID, run.run_id):
            if task.state in ("running", "queued", "restarting"):
                api.set_state(DAG_ID, run.run_id, task.key, "failed")
        api.clear_unfinished(DAG_ID, run.run_id, _stale(settings, run.ds))


def _stale(settings: Settings, ds: str) -> frozenset[str]:
    """The tasks of a day that succeeded, and have changed inputs since: a repaired source."""
    ctx = open_context(settings, ds)
    steps = {(s.step.name, s.upstream) for s in standings(ctx, [ds]) if s.state == "stale"}
    return frozenset(
        task.key
        for task in tasks.tasks(ctx.pipeline)
        if any(
            (step.name, task.upstream if step.per_upstream else None) in steps
            for step in task.steps
        )
    )


@contextmanager
def _stopped_afterwards(settings: Settings, console: Console) -> Iterator[None]:
    """Stop every service on the way out, also on Ctrl-C, SIGTERM and a closed terminal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them
        console.print("stopping Airflow, PostgreSQL and Redis")
        local.stop(settings)


def _leave(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of days >= 1, found {text}")
    return number
