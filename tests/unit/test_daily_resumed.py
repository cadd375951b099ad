"""`make run` after a source was repaired: what runs again, and what is told."""

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.commands.daily import _stale
from jobs.engine.manifests import ManifestStore
from jobs.scheduling import watch
from jobs.services.airflow_api import AirflowApi, RunState, TaskState
from jobs.settings import Settings
from tests.report_fixtures import make_home

DS = "2025-03-02"


def task(key: str, state: str, seconds: float = 1.0) -> TaskState:
    return TaskState(key=key, state=state, try_number=1, duration_s=seconds)


class Recorded(AirflowApi):
    """An Airflow that remembers what it was asked to clear."""

    cleared: tuple[str, ...] = ()

    def tasks(self, *_: str) -> tuple[TaskState, ...]:
        return (task("gate", "success"), task("ingest", "success"), task("validate", "failed"))

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        assert (method, path) == ("POST", "dags/derm_daily/clearTaskInstances")
        assert body
        type(self).cleared = tuple(body["task_ids"])


def test_tasks_with_changed_inputs_are_cleared_with_the_failed_ones(tmp_path: Path) -> None:
    make_home(tmp_path, days=2)
    settings = Settings(home=tmp_path)
    assert not {"ingest", "validate"} & _stale(settings, DS)
    store = ManifestStore(tmp_path / "manifests")
    simulated = store.get("simulate", DS, None)
    assert simulated
    outputs = tuple(a.model_copy(update={"digest": "repaired"}) for a in simulated.outputs)
    store.put(simulated.model_copy(update={"outputs": outputs}))
    stale = _stale(settings, DS)
    assert {"ingest", "validate"} <= stale
    assert "gate" not in stale
    api = Recorded(url="http://127.0.0.1:1", user="admin", password="", token="")
    api.clear_unfinished("derm_daily", "run", stale)
    assert Recorded.cleared == ("ingest", "validate")
    api.clear_unfinished("derm_daily", "run")
    assert Recorded.cleared == ("validate",)


def test_what_was_done_before_is_not_told_again() -> None:
    said = io.StringIO()
    run = RunState(run_id="run", ds=DS, state="running")
    with watch.terminal(Console(file=said), [DS], 3) as display:
        old = task("gate", "success")
        display.before(watch.DayView(run=run, tasks=(old, task("ingest", "success"))))
        again = task("ingest", "success", seconds=2.0)
        display.show(watch.DayView(run=run, tasks=(old, again)))
    assert "ingest" in said.getvalue()
    assert "gate" not in said.getvalue()
