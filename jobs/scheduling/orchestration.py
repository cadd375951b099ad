"""Catalog entry -> Airflow task. With `dags/`, the only place that imports Airflow.

Every task is one `derm` command in the job environment, shown in the UI exactly as it can be
pasted into a shell. Read while DAG files are parsed, so it imports nothing that computes.
"""

import datetime as dt
import re
import shlex
from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import (
    DAG,
    Asset,
    BaseOperator,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    SyncCallback,
    TaskGroup,
    Variable,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from jobs.engine import spaces
from jobs.pipelines import tasks
from jobs.pipelines.catalog import pipeline_of
from jobs.scheduling import alerts, maintenance
from jobs.settings import Home, Settings

# The day a run is about: every command gets it spelled out, none asks the clock.
DAY = "{{ data_interval_start | ds }}"

# `derm` promises that these exit codes mean "the same again would end the same way".
HOPELESS_EXIT_CODES = (2, 3)

# A day begins 24 hours before midnight, and is published within six hours after it.
_DUE_AFTER = dt.timedelta(hours=24 + 6)
# A day that is queued this long after it was due is history: catching up on it wakes nobody.
_HISTORY = dt.timedelta(days=1)

_SHARED_WITH_OTHERS = ("lake:events", "release")
_SHARED_SUFFIX = "/pool"


class DermOperator(BaseOperator):
    """Runs one `derm` command; fails at once when its exit code says that a retry is pointless.

    Args:
        command: shell command, a template.
    """

    template_fields = ("command",)
    template_fields_renderers = {"command": "bash"}  # noqa: RUF012  (Airflow's own declaration)
    ui_color = "#e8f0f2"

    def __init__(self, *, command: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command = command
        self._hook: SubprocessHook | None = None

    def execute(self, context: Any) -> None:  # noqa: ARG002  (Airflow's signature)
        """Run the command, its output going to the task's log.

        Raises:
            AirflowFailException: a retry cannot help (wrong input, a guard refused).
            AirflowException: it failed otherwise.
        """
        self._hook = SubprocessHook()
        code = self._hook.run_command(["bash", "-c", self.command]).exit_code
        if code in HOPELESS_EXIT_CODES:
            raise AirflowFailException(f"exit code {code}: see the message of derm above")
        if code != 0:
            raise AirflowException(f"exit code {code}")

    def on_kill(self) -> None:
        """Stop the command and its children when the task is stopped."""
        if self._hook:
            self._hook.send_sigterm()


def notify_failure(context: Any) -> None:
    """Say that a task failed for good. An alert that cannot be sent is in the log of the task."""
    begin = context.get("data_interval_start")
    document = alerts.task_failed(
        dag=context["dag"].dag_id,
        run=context["run_id"],
        day=begin.date().isoformat() if begin else "",
        task=context["task"].task_id,
        error=context.get("exception", ""),
        log_url=context["ti"].log_url,
    )
    alerts.send(document, _webhook())


def notify_late(context: Any) -> None:
    """Say that a day is not published when it is due, unless it is history."""
    run = context["dag_run"]
    due = str(context["deadline"]["deadline_time"])
    queued = run["queued_at"]
    if dt.datetime.fromisoformat(queued) - dt.datetime.fromisoformat(due) > _HISTORY:
        alerts.log.info(
            "%s was due at %s and queued at %s: catching up", run["dag_id"], due, queued
        )
        return
    document = alerts.day_late(
        dag=run["dag_id"],
        run=run["dag_run_id"],
        day=(run["data_interval_start"] or "")[:10],
        due=due,
    )
    alerts.send(document, _webhook())


def _webhook() -> str:
    """From the environment, else from Airflow's variable `derm_alert_webhook`."""
    configured = Settings.from_environment().alert_webhook.get_secret_value()
    return configured or str(Variable.get("derm_alert_webhook", default=""))


def deadline() -> DeadlineAlert:
    """The alert for a day that is late.

    Counted from the beginning of the day. DAGRUN_QUEUED_AT would start again whenever a task is
    cleared, and Airflow 3.3 then cannot clear it at all: it adds seconds that are a document.
    """
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=_DUE_AFTER,
        callback=SyncCallback(notify_late),
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


def add_tasks(dag: DAG, settings: Settings) -> None:
    """Add every task of the catalog and the arrows between them to `dag`."""
    pipeline = pipeline_of(Home.load(settings.home))
    groups = {u: TaskGroup(group_id=u, dag=dag) for u in pipeline.names}
    operators = {
        task.key: _operator(task, settings, dag, groups[task.upstream] if task.upstream else None)
        for task in tasks.tasks(pipeline)
    }
    for before, after in tasks.arrows(pipeline):
        operators[before].set_downstream(operators[after])


def add_chores(dag: DAG, settings: Settings, wanted: Sequence[maintenance.Chore]) -> None:
    """Add commands that are not steps of a day to `dag`, one after the other."""
    before: DermOperator | None = None
    for chore in wanted:
        operator = DermOperator(
            task_id=chore.name,
            dag=dag,
            command=command(settings, chore.arguments),
            doc_md=_chore_documentation(chore),
            **_resources(chore),
        )
        if before:
            before.set_downstream(operator)
        before = operator


def _operator(
    task: tasks.Task, settings: Settings, dag: DAG, group: TaskGroup | None
) -> DermOperator:
    return DermOperator(
        task_id=task.name,
        dag=dag,
        task_group=group,
        command=command(settings, task.arguments(DAY)),
        doc_md=documentation(task),
        outlets=[_asset(name) for name in task.outputs if _is_shared(name)],
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
            f"Runbook: `docs/runbook.md#{step.name}`",
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
        f"`derm {asked}` (complete: *Rendered Templates*)",
        chore.summary,
        f"**If it fails.** {chore.failure}",
        f"**What to do.** {chore.remedy}",
        f"Runbook: `docs/runbook.md#{chore.name}`",
    )
    return "\n\n".join(parts)


def _is_shared(artifact: str) -> bool:
    return artifact in _SHARED_WITH_OTHERS or artifact.endswith(_SHARED_SUFFIX)


def _asset(artifact: str) -> Asset:
    return Asset(name=artifact, uri=f"x-derm://{artifact.replace(':', '/')}", group="derm")


def _midnight(ds: str) -> dt.datetime:
    return dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
