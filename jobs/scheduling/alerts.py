"""What is said to people when a task failed or a day is late: one JSON document, to one webhook.

It is sent from Airflow's processes, so it needs nothing that they lack.
"""

import datetime as dt
import http.client
import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from feature_store.contracts.errors import DermError
from jobs.engine import findings
from jobs.pipelines import catalog
from jobs.pipelines.declarations import Step
from jobs.scheduling import maintenance, messages

log = logging.getLogger("derm.alerts")

_TIMEOUT_S = 10.0
_ERROR_CHARACTERS = 1000
_SILENT = "it ended without a word: stopped, killed, or out of time; its log says how far it came"
_LOOKS_EVERY_S, _TOLD_AGAIN_S = 600, 3600


def task_failed(
    *, dag: str, run: str, day: str, task: str, command: str, error: object, log_url: str
) -> dict[str, Any]:
    """The document about a task that is not tried again.

    Args:
        day: the day of data the run is about; empty when it is about none. Where the error names
            a step, its day is told.
        task: its id in Airflow.
        command: what it ran, complete.
        log_url: the task's page in Airflow; links to the runbook lie beside it.
    """
    message = messages.parse(str(error)) or messages.Message(text="", what="", fields={})
    steps = explanations(task, message.step, log_url)
    return {
        "event": "task_failed",
        "dag": dag,
        "run": run,
        "day": message.day or day,
        "task": task,
        "step": message.fields.get("step", ""),
        "error": message.what[:_ERROR_CHARACTERS] or _SILENT,
        "where": message.fields.get("where", ""),
        "expected": message.fields.get("expected", "")[:_ERROR_CHARACTERS],
        "found": message.fields.get("found", "")[:_ERROR_CHARACTERS],
        "hint": message.fields.get("hint", ""),
        "repair": list(message.commands)
        or ["derm status --days 14" if message.refused else command],
        "log_url": log_url,
        "runbook": steps[0]["runbook"] if steps else "",
        "steps": steps,
    }


def day_late(*, dag: str, run: str, day: str, due: str, base_url: str = "") -> dict[str, Any]:
    """The document about a day that should be published by now.

    Args:
        base_url: of Airflow's UI.
    """
    return {
        "event": "day_late",
        "dag": dag,
        "run": run,
        "day": day,
        "due": due,
        "meaning": "The day is not published. Readers see the newest released day.",
        "remedy": "derm status says what it waits for.",
        "repair": ["derm status"],
        "runbook": runbook("dermnotpublished", base_url),
    }


def runbook(section: str, base_url: str = "") -> str:
    """Where a section of the runbook is: in Airflow's UI where that is known, else in the docs."""
    if not base_url:
        return f"docs/runbook.md#{section}"
    return f"{base_url.rstrip('/')}/derm/docs/runbook.md#{section}"


def is_news(probed: findings.Probed | None, now: dt.datetime) -> bool:
    """Whether people are told of what a look found: when it is new, then once an hour."""
    if probed is None or not probed.findings:
        return True
    for found in probed.findings:
        age = (now - dt.datetime.fromisoformat(found.since)).total_seconds()
        if age % _TOLD_AGAIN_S < _LOOKS_EVERY_S:
            return True
    return False


def send(document: dict[str, Any], url: str) -> None:
    """Log a document; send it to a webhook, if there is one.

    Raises:
        DermError: the webhook did not take it, also when it named another place instead, which
            the document would not have reached; only its host is named, its URL may hold a secret.
    """
    body = json.dumps(document)
    log.warning("%s", body)
    if not url:
        return
    try:
        request = urllib.request.Request(  # noqa: S310 - the opener knows HTTP alone
            url, data=body.encode(), headers={"Content-Type": "application/json"}
        )
        with _HTTP.open(request, timeout=_TIMEOUT_S):
            pass
    except (OSError, ValueError, http.client.HTTPException) as error:
        found = type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            found = f"{error.code} {error.reason}"
            error.close()
        raise DermError(
            "the alert could not be sent",
            where=_host(url),
            expected="a webhook, http:// or https://, that takes a JSON document by POST itself",
            found=found,
            hint="the document is in the log above",
        ) from None


def _http() -> urllib.request.OpenerDirector:
    """An opener for HTTP and nothing else, which follows no redirect: a POST would not survive."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


_HTTP = _http()


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or "DERM_ALERT_WEBHOOK"
    except ValueError:
        return "DERM_ALERT_WEBHOOK"


def explanations(task: str, step: str = "", log_url: str = "") -> list[dict[str, str]]:
    """What the failure of a task means, from the catalog: of the step that failed, or of each.

    Args:
        step: the one that failed; empty when that is not known.
        log_url: a page of Airflow's UI.
    """
    base_url = log_url.partition("/dags/")[0] if "/dags/" in log_url else ""
    of_task: list[Step | maintenance.Chore] = [
        s for s in catalog.every_step() if s.task == task.rpartition(".")[2]
    ]
    of_task = of_task or [c for c in maintenance.CHORES if c.name == task]
    # A repair runs any step of the catalog: the one that failed is explained first.
    named = [s for s in catalog.every_step() if s.name == step]
    chosen = named + [s for s in of_task if not isinstance(s, Step)] if named else of_task
    return [
        {
            "step": one.name,
            "meaning": one.failure,
            "remedy": one.remedy,
            "runbook": runbook(one.name, base_url),
        }
        for one in chosen
    ]
