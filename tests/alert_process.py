"""Run by Airflow's Python: let alerts happen the way Airflow makes them happen.

`failure`: a run of `derm_backfill` whose command fails, through Airflow's own task runner.
`late`: the deadline's callback, found by its path and called by Airflow's own callback runner.
`late_by_triggerer`: where the executor is Kubernetes': Airflow's own trigger awaits it.
`history`: the same, for a day that is queued long after it was due.
`due`: a run of `derm_daily` fails and is cleared; when it is due is logged.
"""

import asyncio
import datetime as dt
import logging
import os
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.callback_supervisor import execute_callback

LATE = {
    "dag_run": {
        "dag_id": "derm_daily",
        "dag_run_id": "scheduled__2025-03-09",
        "data_interval_start": "2025-03-08T00:00:00Z",
        "queued_at": "2025-03-09T00:00:01Z",
    },
    "deadline": {"id": "1", "deadline_time": "2025-03-09T06:00:00Z"},
}


def dag_of(folder: str, dag_id: str) -> Any:
    bag = DagBag(folder)
    assert not bag.import_errors, bag.import_errors
    return bag.dags[dag_id]


def show_deadline(dag: Any) -> None:
    from airflow.models import DagRun
    from airflow.models.deadline import Deadline
    from airflow.models.taskinstance import clear_task_instances
    from airflow.utils.session import create_session
    from sqlalchemy import select

    dag.test(logical_date=dt.datetime(2025, 3, 8, tzinfo=dt.UTC))
    with create_session() as session:
        (run,) = session.scalars(select(DagRun).where(DagRun.dag_id == dag.dag_id))
        clear_task_instances(run.get_task_instances(session=session), session)
        (due,) = session.scalars(select(Deadline.deadline_time))
        logging.getLogger("deadline").warning("DUE %s", due)


def await_callback(folder: str) -> None:
    """What a triggerer does with the deadline of the DAG as it is read beside that executor."""
    from airflow.sdk import AsyncCallback
    from airflow.triggers.callback import CallbackTrigger

    os.environ["AIRFLOW__CORE__EXECUTOR"] = (
        "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
    )
    callback = dag_of(folder, "derm_daily").deadline[0].callback
    assert isinstance(callback, AsyncCallback), callback

    async def run() -> list[Any]:
        return [e async for e in CallbackTrigger(callback.path, {"context": LATE}).run()]

    events = asyncio.run(run())
    assert [e.payload["state"] for e in events][-1] == "success", events


def main(what: str, folder: str) -> None:
    if what == "due":
        show_deadline(dag_of(folder, "derm_daily"))
        return
    if what == "failure":
        days = {"first_day": "2025-03-08", "last_day": "2025-03-08"}
        dag_of(folder, "derm_backfill").test(run_conf=days)
        return
    if what == "late_by_triggerer":
        await_callback(folder)
        return
    alert = dag_of(folder, "derm_daily").deadline[0]
    if what == "history":
        LATE["dag_run"]["queued_at"] = "2025-03-10T06:00:01Z"
    log = logging.getLogger("callback")
    done, problem = execute_callback(alert.callback.path, {"context": LATE}, "", None, log)
    assert done, problem


main(*sys.argv[1:])
