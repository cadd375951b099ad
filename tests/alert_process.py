"""Run by Airflow's Python: let alerts happen the way Airflow makes them happen.

`failure`: a run of `derm_backfill` whose command fails, through Airflow's own task runner.
`late`: the deadline's callback, found by its path and called by Airflow's own callback runner.
"""

import logging
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time.callback_supervisor import execute_callback

LATE = {
    "dag_run": {
        "dag_id": "derm_daily",
        "dag_run_id": "scheduled__2025-03-09",
        "data_interval_start": "2025-03-08T00:00:00Z",
    },
    "deadline": {"id": "1", "deadline_time": "2025-03-09T06:00:00Z"},
}


def dag_of(folder: str, dag_id: str) -> Any:
    bag = DagBag(folder)
    assert not bag.import_errors, bag.import_errors
    return bag.dags[dag_id]


def main(what: str, folder: str) -> None:
    if what == "failure":
        days = {"first_day": "2025-03-08", "last_day": "2025-03-08"}
        dag_of(folder, "derm_backfill").test(run_conf=days)
        return
    alert = dag_of(folder, "derm_daily").deadline[0]
    log = logging.getLogger("callback")
    done, problem = execute_callback(alert.callback.path, {"context": LATE}, "", None, log)
    assert done, problem


main(*sys.argv[1:])
