"""What is said to people when a task failed or a day is late: one JSON document, to one webhook.

Standard library only: it is sent from Airflow's processes.
"""

import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from feature_store.contracts.errors import DermError
from jobs.pipelines import daily
from jobs.scheduling import maintenance

log = logging.getLogger("derm.alerts")

_TIMEOUT_S = 10.0
_ERROR_CHARACTERS = 1000


def task_failed(
    *, dag: str, run: str, day: str, task: str, error: object, log_url: str
) -> dict[str, Any]:
    """The document about a task that is not tried again.

    Args:
        day: the day the run is about; empty when it is about none.
        task: its id in Airflow.
    """
    return {
        "event": "task_failed",
        "dag": dag,
        "run": run,
        "day": day,
        "task": task,
        "error": str(error)[:_ERROR_CHARACTERS],
        "log_url": log_url,
        "steps": _explanations(task),
    }


def day_late(*, dag: str, run: str, day: str, due: str) -> dict[str, Any]:
    """The document about a day that should be published by now."""
    return {
        "event": "day_late",
        "dag": dag,
        "run": run,
        "day": day,
        "due": due,
        "meaning": "The day is not published. Readers see the newest released day.",
        "remedy": "derm status says what it waits for.",
        "runbook": "docs/runbook.md#dermnotpublished",
    }


def send(document: dict[str, Any], url: str) -> None:
    """Log a document; send it to a webhook, if there is one.

    Raises:
        DermError: the webhook did not take it; only its host is named, its URL may hold a secret.
    """
    body = json.dumps(document)
    log.warning("%s", body)
    if not url:
        return
    request = urllib.request.Request(  # noqa: S310
        url, data=body.encode(), headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            pass
    except (OSError, ValueError) as error:
        found = type(error).__name__
        if isinstance(error, urllib.error.HTTPError):
            found = f"{error.code} {error.reason}"
            error.close()
        raise DermError(
            "the alert could not be sent",
            where=urllib.parse.urlsplit(url).hostname or "DERM_ALERT_WEBHOOK",
            expected="a webhook that takes a JSON document by POST",
            found=found,
            hint="the document is in the log above",
        ) from None


def _explanations(task: str) -> list[dict[str, str]]:
    """What the failure of each step of a task means, from the catalog."""
    steps = [s for s in daily.STEPS if s.task == task.rpartition(".")[2]]
    found = [
        {
            "step": step.name,
            "meaning": step.failure,
            "remedy": step.remedy,
            "runbook": f"docs/runbook.md#{step.name}",
        }
        for step in steps
    ]
    return found or [
        {
            "step": c.name,
            "meaning": c.failure,
            "remedy": c.remedy,
            "runbook": f"docs/runbook.md#{c.name}",
        }
        for c in (*maintenance.BACKFILL, *maintenance.BOOTSTRAP, *maintenance.MAINTENANCE)
        if c.name == task
    ]
