"""The processes that may be struck, found by what they are. Only ever those of one home."""

import json
from pathlib import Path

import psutil

from jobs.services import processes

VICTIMS = ("task", "jvm", "python worker", "redis", "scheduler", "postgres")

_LOOKS_LIKE = {
    "jvm": "org.apache.spark.deploy.SparkSubmit",
    "python worker": "pyspark.daemon",
    "scheduler": "airflow scheduler",
}


def find(victim: str, home: Path, command: psutil.Process) -> list[psutil.Process]:
    """What one blow may take; empty when there is nothing of the kind just now.

    Args:
        command: the command that was started. Its family is searched, and the home's services.
    """
    if victim == "redis":
        return _alive(_number(home / "services" / "redis" / "server.json", "pid"))
    if victim == "postgres":
        return _alive(_first_line(home / "services" / "airflow" / "postgres" / "postmaster.pid"))
    family = [*_children(command), *processes.marked(home)]
    if victim == "task":
        # Below a scheduler the tasks; without one the command is the task.
        return [p for p in family if _is_task(_line(p))] or (
            [] if processes.marked(home) else [command]
        )
    return [p for p in family if _LOOKS_LIKE[victim] in _line(p)][:1]


def _is_task(line: str) -> bool:
    return "bin/derm " in line and "bash -c" not in line and " daily" not in line


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _children(command: psutil.Process) -> list[psutil.Process]:
    try:
        return command.children(recursive=True)
    except psutil.Error:
        return []


def _alive(pid: int | None) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)] if pid else []
    except psutil.Error:
        return []


def _number(path: Path, key: str) -> int | None:
    try:
        return int(json.loads(path.read_text())[key])
    except (OSError, ValueError, KeyError):
        return None


def _first_line(path: Path) -> int | None:
    try:
        return int(path.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
