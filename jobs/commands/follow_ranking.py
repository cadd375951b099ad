"""Rankers in Airflow while days run there: let releases begin `derm_ranking`, and wait for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from jobs.engine.runner import open_context
from jobs.engine.staleness import standings
from jobs.scheduling import watch
from jobs.services.airflow_api import AirflowApi, RunState
from jobs.settings import Settings

DAG_ID = "derm_ranking"

_POLL_S = 0.5
# A release begins a run within seconds. One of before nobody listened for begins none.
_BEGINS_WITHIN_S = 60.0


@contextmanager
def listening(api: AirflowApi) -> Iterator[None]:
    """Let releases begin a ranking, as unpausing the DAG does; paused again afterwards."""
    while not api.has_read(DAG_ID, ""):
        time.sleep(_POLL_S)
    api.set_paused(DAG_ID, paused=False)
    try:
        yield
    finally:
        api.set_paused(DAG_ID, paused=True)


def follow(api: AirflowApi, settings: Settings, ds: str, console: Console) -> bool:
    """Wait until every ranker has learned a released day, telling which task has ended.

    Returns:
        Whether all have; what failed is explained.

    Raises:
        DermError: Airflow stopped working meanwhile.
    """
    health, told = watch.Health(api), set[tuple[str, str]]()
    run_id, seen_at, asked = "", time.monotonic(), False
    while True:
        with health.watched():
            active = api.active_run(DAG_ID)
            run_id = active[0] if active else run_id
            if run_id:
                _tell(api, run_id, told, console)
            if active:
                seen_at = time.monotonic()
            elif run_id and api.run_state(DAG_ID, run_id) == "failed":
                run = RunState(run_id=run_id, ds=ds, state="failed")
                view = watch.DayView(run=run, tasks=api.tasks(DAG_ID, run_id))
                watch.explain(api, DAG_ID, view, console)
                return False
            elif _ranked(settings, ds):
                return True
            elif time.monotonic() - seen_at > _BEGINS_WITHIN_S:
                if asked:
                    return False
                run_id, asked = api.trigger(DAG_ID, {"day": ds}), True
        time.sleep(_POLL_S)


def _tell(api: AirflowApi, run_id: str, told: set[tuple[str, str]], console: Console) -> None:
    for task in api.tasks(DAG_ID, run_id):
        if task.state in watch.TOLD and (run_id, task.key) not in told:
            told.add((run_id, task.key))
            seconds = "" if task.duration_s is None else f"{task.duration_s:6.1f} s"
            console.print(f"ranking     {task.key:27} {task.state:16}{seconds}", soft_wrap=True)


def _ranked(settings: Settings, ds: str) -> bool:
    ctx = open_context(settings, ds)
    return all(s.state == "done" for s in standings(ctx, [ds], ctx.pipeline.ranking))
