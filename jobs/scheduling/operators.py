"""What Airflow's tasks are made of: one operator, an approval, and what is told when one fails.

Every task is one `derm` command in the job environment, shown in the UI exactly as it can be
pasted into a shell.
"""

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator, BaseSensorOperator, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from feature_store.contracts.artifacts import reference
from jobs import exits
from jobs.engine import findings
from jobs.scheduling import alerts, assets
from jobs.scheduling.messages import Listener
from jobs.services import running
from jobs.settings import Settings

# `derm` promises that these exit codes mean "the same again would end the same way".
HOPELESS_EXIT_CODES = (2, 3)

# A day that is queued this long after it was due is history: catching up on it wakes nobody.
_HISTORY = dt.timedelta(days=1)


class _Command:
    """A `derm` command as a task.

    What the command says is in the task's log at its level, errors as errors; the exception, and
    so the alert, is derm's message; and the log ends with what it means and where to read on.
    """

    command: str
    task_id: str
    log: Any
    _running: running.Running | None = None

    def _obey(self, context: Any) -> int:
        """Run the command, its output going to the task's log; return 0, or 4 for too early.

        Raises:
            AirflowFailException: a retry cannot help (wrong input, a guard refused).
            AirflowException: it failed otherwise.
        """
        listener = Listener(self.log)
        code = self._run(listener.line)
        if code in (0, exits.TOO_EARLY):
            return code
        message = listener.message()
        self._explain(message.step if message else "", context["ti"].log_url)
        said = f"exit code {code}" + (f"\n{message.text}" if message else "; it gave no reason")
        if code in HOPELESS_EXIT_CODES:
            raise AirflowFailException(said)
        raise AirflowException(said)

    def _run(self, hear: Callable[[str], None]) -> int:
        """Run the command to its end, hearing each line as it is printed; return the exit code."""
        self.log.info("Running command: %s", self.command)
        self._running = running.begin(self.command)
        self.log.info("as %s", self._running.how)
        # Not closed when a time limit strikes here: `on_kill` ends the command first.
        for line in self._running.lines():
            hear(line)
        return self._running.wait()

    def _explain(self, step: str, log_url: str) -> None:
        """End the log with what it means, what to do, and where to read on."""
        for said in alerts.explanations(self.task_id, step, log_url):
            self.log.error(
                "%s: %s\nWhat to do: %s\nRunbook: %s",
                said["step"],
                said["meaning"],
                said["remedy"],
                said["runbook"],
            )

    def on_kill(self) -> None:
        """Stop the command and its children when the task is stopped."""
        if self._running:
            self._running.terminate()


class DermOperator(_Command, BaseOperator):
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

    def execute(self, context: Any) -> None:
        """Run the command.

        Raises:
            AirflowFailException: a retry cannot help (wrong input, a guard refused).
            AirflowException: it failed otherwise, or came too early.
        """
        if self._obey(context):
            raise AirflowException(f"exit code {exits.TOO_EARLY}: it is too early")
        _describe(self.outlets, context)


class DermSensor(_Command, BaseSensorOperator):
    """Runs a `derm` command now and then until it is no longer too early; no slot is held between.

    Args:
        command: shell command, a template.
    """

    template_fields = ("command",)
    template_fields_renderers = {"command": "bash"}  # noqa: RUF012  (Airflow's own declaration)
    ui_color = "#f4efe2"

    def __init__(self, *, command: str, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", **kwargs)
        self.command = command

    def poke(self, context: Any) -> bool:
        """Whether the command found what it looks for.

        Raises:
            AirflowFailException: what is there is wrong; waiting cannot help.
            AirflowException: it failed otherwise.
        """
        return self._obey(context) == 0


class Approval(ApprovalOperator):
    """Waits for a person, when the run was triggered so: nothing is overwritten before."""

    def execute(self, context: Any) -> Any:
        """Go on at once where no approval was asked for.

        Raises:
            TaskAwaitingInput: Airflow's way to wait without a process.
        """
        if not context["params"].get("approval"):
            self.log.info("no approval was asked for")
            return None
        return super().execute(context)


def notify_failure(context: Any) -> None:
    """Say that a task failed for good. An alert that cannot be sent is in the log of the task."""
    settings, now = Settings.from_environment(), dt.datetime.now(dt.UTC)
    task, begin = context["task"], context.get("data_interval_start")
    if task.task_id == "probe" and not alerts.is_news(findings.load(settings.home), now):
        alerts.log.info("people know: they were told within the last hour")
        return
    document = alerts.task_failed(
        dag=context["dag"].dag_id,
        run=context["run_id"],
        # Of the others the interval is when they looked, not what they looked at.
        day=begin.date().isoformat() if begin and context["dag"].dag_id == "derm_daily" else "",
        task=task.task_id,
        command=task.command,
        error=context.get("exception", ""),
        log_url=context["ti"].log_url,
    )
    alerts.send(document, _webhook(settings))


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
        base_url=conf.get("api", "base_url", fallback=""),
    )
    alerts.send(document, _webhook(Settings.from_environment()))


async def notify_late_in_the_triggerer(context: Any) -> None:
    """The same, for executors that run no callbacks: the triggerer awaits it."""
    await asyncio.to_thread(notify_late, context)


def _webhook(settings: Settings) -> str:
    """From the environment, else from Airflow's variable `derm_alert_webhook`."""
    configured = settings.alert_webhook.get_secret_value()
    return configured or str(Variable.get("derm_alert_webhook", default=""))


def _describe(outlets: Any, context: Any) -> None:
    """Give the events of what a task made the day, the rows and the digest."""
    home = Settings.from_environment().home
    begin = context.get("data_interval_start")
    for asset in outlets:
        ds = begin.date().isoformat() if begin else ""
        with contextlib.suppress(OSError, LookupError, ValueError):
            made = assets.metadata(home, reference(asset.name), ds)
            context["outlet_events"][asset].extra = made
