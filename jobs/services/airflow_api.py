"""Airflow's REST interface, as far as the commands need it. Standard library only."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from feature_store.contracts.errors import DermError

_TIMEOUT_S = 30


class Unreachable(DermError):
    """Airflow does not answer."""


class Refused(Unreachable):
    """Airflow answers, and will not do it: asking again would end the same way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskState:
    """One task of one run."""

    key: str
    state: str | None
    try_number: int
    duration_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """One run of a DAG, which is one day."""

    run_id: str
    ds: str
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AirflowApi:
    """A logged-in client."""

    url: str
    user: str
    password: str = field(repr=False)
    token: str = field(repr=False)

    @classmethod
    def login(cls, url: str, user: str, password: str) -> "AirflowApi":
        """Log in.

        Raises:
            Unreachable: the server does not answer (yet).
        """
        login = {"username": user, "password": password}
        token = _request("POST", f"{url}/auth/token", login, token=None)["access_token"]
        return cls(url=url, user=user, password=password, token=token)

    def unhealthy(self) -> tuple[str, ...]:
        """Components that are not healthy; empty when all is well."""
        health = self._call("GET", "monitor/health")
        needed = ("metadatabase", "scheduler", "dag_processor")
        return tuple(name for name in needed if health[name]["status"] != "healthy")

    def import_errors(self) -> tuple[str, ...]:
        """What went wrong when DAG files were read."""
        return tuple(e["stack_trace"] for e in self._call("GET", "importErrors")["import_errors"])

    def has_read(self, dag_id: str, last_ds: str) -> bool:
        """Whether the DAG has been read in the version that ends with day `last_ds` (or never)."""
        listed = self._call("GET", f"dags?dag_id_pattern={dag_id}")
        if not any(d["dag_id"] == dag_id and not d["is_stale"] for d in listed["dags"]):
            return False
        details = self._call("GET", f"dags/{dag_id}/details")
        return (details["end_date"] or "")[:10] == last_ds

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause a DAG, or let its schedule start runs."""
        self._call("PATCH", f"dags/{dag_id}", {"is_paused": paused})

    def is_paused(self, dag_id: str) -> bool:
        """Whether a DAG is paused."""
        return bool(self._call("GET", f"dags/{dag_id}")["is_paused"])

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool, or change its size."""
        wanted = {"name": name, "slots": slots, "description": description}
        known = {p["name"]: p for p in self._call("GET", "pools?limit=100")["pools"]}
        if name not in known:
            self._call("POST", "pools", wanted)
        elif known[name]["slots"] != slots:
            self._call("PATCH", f"pools/{name}?update_mask=slots", {**wanted, "pool": name})

    def runs(self, dag_id: str) -> tuple[RunState, ...]:
        """Runs of a DAG that have a day, the latest of each day, oldest day first."""
        listed = self._call("GET", f"dags/{dag_id}/dagRuns?limit=100&order_by=-run_after")
        by_day = {
            ds: RunState(run_id=run["dag_run_id"], ds=ds, state=run["state"])
            for run in reversed(listed["dag_runs"])
            if (ds := (run["data_interval_start"] or "")[:10])
        }
        return tuple(by_day[ds] for ds in sorted(by_day))

    def trigger(self, dag_id: str, conf: Mapping[str, str | int]) -> str:
        """Start a run with these parameters; return its id."""
        wanted = {"logical_date": None, "conf": conf}
        return str(self._call("POST", f"dags/{dag_id}/dagRuns", wanted)["dag_run_id"])

    def active_run(self, dag_id: str) -> tuple[str, dict[str, Any]] | None:
        """The id and the parameters of a run that has not ended, None when there is none."""
        query = "state=running&state=queued&order_by=run_after&limit=1"
        listed = self._call("GET", f"dags/{dag_id}/dagRuns?{query}")["dag_runs"]
        return (str(listed[0]["dag_run_id"]), listed[0]["conf"] or {}) if listed else None

    def run_state(self, dag_id: str, run_id: str) -> str:
        """How a run stands."""
        return str(self._call("GET", _run_path(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> tuple[TaskState, ...]:
        """Every task of a run."""
        listed = self._call("GET", f"{_run_path(dag_id, run_id)}/taskInstances?limit=100")
        return tuple(
            TaskState(
                key=t["task_id"],
                state=t["state"],
                try_number=t["try_number"],
                duration_s=t["duration"],
            )
            for t in listed["task_instances"]
        )

    def set_state(
        self, dag_id: str, run_id: str, task: str, state: Literal["failed", "success"]
    ) -> None:
        """Declare how a task ended."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task}"
        self._call("PATCH", path, {"new_state": state})

    def clear_unfinished(
        self, dag_id: str, run_id: str, stale: Collection[str] = frozenset()
    ) -> None:
        """Let every task of a run that did not succeed run again, and those that are stale."""
        unfinished = [
            t.key
            for t in self.tasks(dag_id, run_id)
            if t.state not in (None, "success") or (t.state == "success" and t.key in stale)
        ]
        if unfinished:
            what = {
                "dry_run": False,
                "dag_run_id": run_id,
                "task_ids": unfinished,
                "only_failed": False,
                "reset_dag_runs": True,
            }
            self._call("POST", f"dags/{dag_id}/clearTaskInstances", what)

    def log(self, dag_id: str, run_id: str, task: TaskState) -> tuple[str, ...]:
        """The log of the last try of a task, a message a line."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task.key}/logs/{task.try_number}"
        entries = self._call("GET", f"{path}?full_content=true")["content"]
        return tuple(e if isinstance(e, str) else e["event"] for e in entries)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return _request(method, f"{self.url}/api/v2/{path}", body, token=self.token)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"


def _request(method: str, url: str, body: dict[str, Any] | None, *, token: str | None) -> Any:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise Refused(
            f"Airflow refused {method}",
            where=url,
            found=f"{error.code} {error.read().decode(errors='replace')[:1000]}",
        ) from error
    except OSError as error:
        raise Unreachable("Airflow does not answer", where=url, found=str(error)) from error
    return json.loads(content) if content else None
