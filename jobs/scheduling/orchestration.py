"""Catalog entry -> Airflow task. With `operators` and `dags/`, the only place that imports Airflow.

Read while DAG files are parsed, so it imports nothing that computes.
"""

import datetime as dt
import re
import shlex
from collections.abc import Sequence
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    AsyncCallback,
    BaseOperator,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    SyncCallback,
    TaskGroup,
)
from airflow.sdk.configuration import conf

from feature_store.contracts.artifacts import Reference
from jobs.datasets import readiness
from jobs.engine import spaces
from jobs.pipelines import tasks
from jobs.pipelines.catalog import Pipeline, pipeline_of
from jobs.scheduling import alerts, assets, maintenance
from jobs.scheduling.operators import (
    Approval,
    DermOperator,
    DermSensor,
    notify_failure,
    notify_late,
    notify_late_in_the_triggerer,
)
from jobs.settings import Home, Settings

# The day a run is about: every command gets it spelled out, none asks the clock.
DAY = "{{ data_interval_start | ds }}"

# A day begins 24 hours before midnight, and is published within six hours after it.
_DUE_AFTER = dt.timedelta(hours=24 + 6)
# The task that waits for `wait`.
_READS_THE_SOURCE = "ingest"
# Executors that run a deadline's callback in a process of their own. Others need the triggerer.
_RUN_CALLBACKS = ("LocalExecutor", "CeleryExecutor")


def deadline() -> DeadlineAlert:
    """The alert for a day that is late.

    Counted from the beginning of the day. DAGRUN_QUEUED_AT would start again whenever a task is
    cleared, and Airflow 3.3 then cannot clear it at all: it adds seconds that are a document.

    Who calls back depends on the executor: of Airflow 3.3 those for Kubernetes cannot.
    """
    executor = conf.get("core", "executor").partition(",")[0].rpartition(".")[2]
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=_DUE_AFTER,
        callback=SyncCallback(notify_late)
        if executor in _RUN_CALLBACKS
        else AsyncCallback(notify_late_in_the_triggerer),
    )


def daily_arguments(settings: Settings) -> dict[str, Any]:
    """How a DAG with one run per day of this home is scheduled.

    One run at a time, oldest first. There is no `depends_on_past`: with one active run it
    deadlocks after a repair; the gate checks yesterday instead. After a failed day the DAG pauses.
    Days up to a bootstrap are its own.
    """
    home = Home.load(settings.home)
    return {
        "schedule": CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
        "start_date": _midnight(spaces.load(settings.home).first_daily(home)),
        "end_date": _midnight(settings.last_ds) if settings.last_ds else None,
        "catchup": True,
        "max_active_runs": 1,
        "max_consecutive_failed_dag_runs": 1,
    }


def maintenance_arguments(settings: Settings) -> dict[str, Any]:
    """How a DAG that looks after the newest released day is scheduled: at noon, never for the past.

    The interval begins at noon of the day that was released since.
    """
    return daily_arguments(settings) | {
        "schedule": CronDataIntervalTimetable("0 12 * * *", timezone="UTC"),
        "catchup": False,
        "max_consecutive_failed_dag_runs": 0,
    }


def probe_arguments(settings: Settings) -> dict[str, Any]:
    """How the DAG that looks at everything is scheduled: every ten minutes, one look at a time."""
    return maintenance_arguments(settings) | {
        "schedule": CronDataIntervalTimetable("*/10 * * * *", timezone="UTC"),
        "end_date": None,
        "dagrun_timeout": dt.timedelta(minutes=30),
    }


def add_tasks(dag: DAG, settings: Settings) -> None:
    """Add every task of the catalog and the arrows between them to `dag`."""
    pipeline = pipeline_of(Home.load(settings.home))
    groups = {u: TaskGroup(group_id=u, dag=dag) for u in pipeline.names}
    operators = {
        task.key: _operator(task, settings, dag, groups.get(task.upstream or ""), pipeline)
        for task in tasks.tasks(pipeline)
    }
    wait = _wait(dag, settings)
    for before, after in tasks.arrows(pipeline):
        if wait and (before, after) == (tasks.FIRST, _READS_THE_SOURCE):
            operators[before].set_downstream(wait)
            wait.set_downstream(operators[after])
        else:
            operators[before].set_downstream(operators[after])


def add_chores(dag: DAG, settings: Settings, wanted: Sequence[maintenance.Chore]) -> None:
    """Add commands that are not steps of a day to `dag`, one after the other."""
    pipeline = pipeline_of(Home.load(settings.home))
    before: BaseOperator | None = None
    for chore in wanted:
        operator = (
            _approval(chore, dag) if chore.is_approval else _chore(chore, settings, dag, pipeline)
        )
        if before:
            before.set_downstream(operator)
        before = operator


def _wait(dag: DAG, settings: Settings) -> DermSensor | None:
    """What waits for the source of the day, where the data set says when it is whole."""
    ready = readiness.declared(Home.load(settings.home).dataset)
    if ready is None:
        return None
    return DermSensor(
        task_id=maintenance.WAIT.name,
        dag=dag,
        command=command(settings, maintenance.WAIT.arguments),
        doc_md=_chore_documentation(maintenance.WAIT),
        poke_interval=dt.timedelta(minutes=ready.poke_minutes).total_seconds(),
        timeout=dt.timedelta(hours=ready.timeout_hours).total_seconds(),
        **_resources(maintenance.WAIT),
    )


def _chore(
    chore: maintenance.Chore, settings: Settings, dag: DAG, pipeline: Pipeline
) -> DermOperator:
    return DermOperator(
        task_id=chore.name,
        dag=dag,
        command=command(settings, chore.arguments),
        doc_md=_chore_documentation(chore),
        outlets=[
            _asset(made, pipeline) for what in chore.outlets for made in pipeline.expand(what, None)
        ],
        **_resources(chore),
    )


def _approval(chore: maintenance.Chore, dag: DAG) -> Approval:
    return Approval(
        task_id=chore.name,
        dag=dag,
        owner="derm",
        subject=chore.summary,
        body="The log of `plan` lists every day and step that would be overwritten. "
        "Run {{ run_id }}: {{ params.first_day }} to {{ params.last_day }}, {{ params.what }}.",
        # A run that nobody approved has not repaired anything: it must not end green.
        fail_on_reject=True,
        response_timeout=dt.timedelta(minutes=chore.timeout_minutes),
        doc_md=_chore_documentation(chore),
    )


def _operator(
    task: tasks.Task, settings: Settings, dag: DAG, group: TaskGroup | None, pipeline: Pipeline
) -> DermOperator:
    return DermOperator(
        task_id=task.name,
        dag=dag,
        task_group=group,
        command=command(settings, task.arguments(DAY)),
        doc_md=documentation(task),
        outlets=[_asset(made, pipeline) for made in task.outputs if made.shared],
        **_resources(task),
    )


def _resources(task: tasks.Task | maintenance.Chore) -> dict[str, Any]:
    """Where a task runs, for how long, and how often it is tried again."""
    return {
        "owner": "derm",
        "queue": "gpu" if task.resource == "gpu" else "cpu",
        "pool": "default_pool" if task.resource == "cpu" else task.resource,
        "retries": task.retries,
        "retry_delay": dt.timedelta(minutes=1),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": dt.timedelta(minutes=10),
        "execution_timeout": dt.timedelta(minutes=task.timeout_minutes),
        "do_xcom_push": False,
        "on_failure_callback": notify_failure,
    }


def command(settings: Settings, arguments: str) -> str:
    """A `derm` command, complete: it can be pasted into a shell as it stands."""
    home, program = (shlex.quote(str(p)) for p in (settings.home, settings.bin))
    return f"DERM_HOME={home} {program} {arguments}"


def documentation(task: tasks.Task) -> str:
    """What whoever is woken by this task reads first."""
    parts = [f"`derm {task.arguments('DAY')}`"]
    for step in task.steps:
        parts += [
            f"### {step.name}: {step.summary}",
            f"**If it fails.** {step.failure}",
            f"**What to do.** {step.remedy}",
            _runbook(step.name),
        ]
    parts.append(
        "Exit code 2: the input or the request is wrong. 3: a guard refused the result. Neither is "
        "tried again; fix the cause, then clear this task. Nothing published changes until "
        "`release`. How each day stands: `derm status`."
    )
    return "\n\n".join(parts)


def _chore_documentation(chore: maintenance.Chore) -> str:
    # What the form asks for in capitals; what it merely chooses among is in the rendered command.
    asked = re.sub(r"{{ params\.(\w+).*? }}", lambda m: m[1].upper(), chore.arguments)
    asked = re.sub(r"{{ .*? }}|{% .*? %}", "", asked)
    parts = (
        "" if chore.is_approval else f"`derm {asked}` (complete: *Rendered Templates*)",
        chore.summary,
        f"**If it fails.** {chore.failure}",
        f"**What to do.** {chore.remedy}",
        _runbook(chore.name),
    )
    return "\n\n".join(filter(None, parts))


def _runbook(section: str) -> str:
    """A link to a section of the runbook that the UI serves."""
    address = alerts.runbook(section, conf.get("api", "base_url", fallback=""))
    return f"Runbook: [docs/runbook.md#{section}]({address})"


def _asset(artifact: Reference, pipeline: Pipeline) -> Asset:
    return Asset(
        name=str(artifact),
        uri=assets.uri(artifact),
        group="derm",
        extra=assets.description(pipeline, artifact),
    )


def _midnight(ds: str) -> dt.datetime:
    return dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
