"""A backfill in Airflow: start it there, or find it running, and show here how far it is."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import InputError
from jobs.engine import unfinished
from jobs.engine.unfinished import Repair
from jobs.repair import outcome
from jobs.scheduling import watch
from jobs.services import airflow
from jobs.services.airflow_api import AirflowApi, RunState
from jobs.settings import Home, Settings

_POLL_S = 1.0


def follow(settings: Settings, progress: Repair, *, approval: bool = False) -> int:
    """Run a backfill in this home's Airflow; return 0 when it succeeded, 1 when it failed.

    Interrupted, it goes on there; called again, this finds it.

    Args:
        approval: it waits there until somebody has approved the plan.

    Raises:
        InputError: another one runs there, or waits.
        Unreachable: Airflow does not answer.
        DermError: it stopped working; the same command continues once it is up again.
    """
    api = airflow.connect(settings)
    dag_id = _dag_of(progress)
    run_id = _found(api, dag_id, settings, progress) or _start(
        api, dag_id, progress, approval=approval
    )
    console = Console(highlight=False)
    url = f"{api.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"
    console.print(f"in Airflow, also when this is interrupted: {url}", soft_wrap=True)
    if approval:
        console.print(f"it waits for an approval: {url}/tasks/approve/required_actions")
    state = _watch(api, dag_id, run_id, settings, progress, console)
    if state == "success":
        if record := outcome.newest(settings.home):
            console.print(outcome.render(record), soft_wrap=True)
        return 0
    run = RunState(run_id=run_id, ds=dag_id, state=state)
    watch.explain(api, dag_id, watch.DayView(run=run, tasks=api.tasks(dag_id, run_id)), console)
    console.print(f"{state}; readers keep what they had; the same command continues it")
    return 1


def _found(api: AirflowApi, dag_id: str, settings: Settings, progress: Repair) -> str | None:
    """The run that does this already, None when none runs or waits.

    Raises:
        InputError: it repairs something else.
    """
    active = api.active_run(dag_id)
    if active is None:
        return None
    run_id, conf = active
    asked, found = (
        unfinished.command(progress.plan),
        _command(Home.load(settings.home), dag_id, conf),
    )
    if asked != found:
        raise InputError(
            f"{dag_id} is at work on something else",
            where=f"{api.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}",
            expected=f"a run of: {asked}",
            found=found,
            hint="wait until it has ended, or mark it failed there",
        )
    return run_id


def _command(home: Home, dag_id: str, conf: Mapping[str, Any]) -> str:
    """The command that means what a run was triggered with; the form of the UI has defaults."""
    if dag_id == "derm_bootstrap":
        first = max(shift_day(conf["day"], -conf.get("days_back", 6)), home.start_ds)
        return unfinished.bootstrap_command(first, conf["day"])
    what = conf.get("what", "labels")
    retrain = {"retrain": True, "keep": False}.get(conf.get("models", ""), what != "embeddings")
    return unfinished.backfill_command(conf["first_day"], conf["last_day"], what, retrain=retrain)


def _dag_of(progress: Repair) -> str:
    return "derm_bootstrap" if progress.plan.what == "space" else "derm_backfill"


def _start(api: AirflowApi, dag_id: str, progress: Repair, *, approval: bool) -> str:
    made = progress.plan
    api.set_paused(dag_id, paused=False)
    if made.what == "space":
        back = len(days_between(made.first, made.last)) - 1
        return api.trigger(dag_id, {"day": made.last, "days_back": back})
    conf: dict[str, str | int] = {
        "first_day": made.corrupted[0],
        "last_day": made.corrupted[-1],
        "what": made.what,
        "models": "retrain" if made.retrain else "keep",
        **({"approval": True} if approval else {}),
    }
    return api.trigger(dag_id, conf)


def _watch(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    settings: Settings,
    progress: Repair,
    console: Console,
) -> str:
    """Show how many steps are done until the run has ended; return how it ended."""
    total, told = len(progress.plan.steps), -1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task, health = bar.add_task("waiting", total=total), watch.Health(api)
        state = "queued"
        while state in ("queued", "running"):
            with health.watched():
                state = api.run_state(dag_id, run_id)
            reached = unfinished.load(settings.home)
            if reached and reached.done != told and reached.done < total:
                told = reached.done
                step = reached.plan.steps[told]
                name = " ".join(filter(None, (step.ds, step.step, step.upstream)))
                bar.update(task, completed=told, description=name)
                if not console.is_terminal:
                    console.print(f"{told + 1:>4} of {total}  {name}")
            time.sleep(_POLL_S)
        if state == "success":
            bar.update(task, completed=total, description="done")
    return state
