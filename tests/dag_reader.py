"""Run by Airflow's Python with a folder: everything about its DAGs that a reviewer wants to see.

The last line of output is JSON: `dags`, and `modules`, those that reading the DAG files loaded.
"""

import datetime
import json
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag

FIRST = datetime.datetime(2025, 3, 8, tzinfo=datetime.UTC)


def describe_dag(dag: Any) -> dict[str, Any]:
    """Schedule, limits and tasks of a DAG."""
    return {
        "schedule": [type(dag.timetable).__name__, getattr(dag.timetable, "expression", None)],
        "start": dag.start_date and dag.start_date.isoformat(),
        "params": {name: param.schema for name, param in dag.params.items()},
        "end": dag.end_date and dag.end_date.isoformat(),
        "catchup": dag.catchup,
        "due_after_s": [a.interval.total_seconds() for a in dag.deadline or ()],
        "max_active_runs": dag.max_active_runs,
        "max_consecutive_failed_dag_runs": dag.max_consecutive_failed_dag_runs,
        "tags": sorted(dag.tags),
        "tasks": {task.task_id: describe_task(task) for task in dag.tasks},
    }


def describe_task(task: Any) -> dict[str, Any]:
    """Arrows and resources of a task, and its command on a day, which also fills in the form."""
    params = {
        name: FIRST.date().isoformat() if param.schema.get("format") == "date" else param.value
        for name, param in task.dag.params.items()
    }
    context = {"data_interval_start": task.dag.start_date or FIRST, "params": params}
    return {
        "command": task.render_template(
            getattr(task, "command", ""), context, task.dag.get_template_env()
        ),
        "downstream": sorted(task.downstream_task_ids),
        "pool": task.pool,
        "queue": task.queue,
        "owner": task.owner,
        "retries": task.retries,
        "timeout_s": (
            task.execution_timeout or getattr(task, "response_timeout", None)
        ).total_seconds(),
        "outlets": {asset.uri: asset.extra for asset in task.outlets},
        "trigger_rule": str(task.trigger_rule),
        "doc": task.doc_md,
        **describe_waiting(task),
    }


def describe_waiting(task: Any) -> dict[str, Any]:
    """How a sensor looks for what it waits for."""
    if not hasattr(task, "poke_interval"):
        return {}
    return {"mode": task.mode, "poke_s": task.poke_interval, "gives_up_s": task.timeout}


def main(folder: str) -> None:
    """Read the DAG files of a folder and print what they say."""
    before = set(sys.modules)
    bag = DagBag(folder)
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    dags = {dag.dag_id: describe_dag(dag) for dag in bag.dags.values()}
    modules = sorted(set(sys.modules) - before)
    sys.stdout.write("\n" + json.dumps({"dags": dags, "modules": modules}) + "\n")


main(sys.argv[1])
