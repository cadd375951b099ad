"""Where the seconds of a day go: days through Airflow, one after the other, in turn over versions.

    python -m benchmarks.pipeline.airflow_day --version before=/tmp/before --version after=.

Each version is a checkout with its environments, and gets a home of its own. Day 1 of every version
is run before day 2 of any, so that a machine that is slower for a while is slower for all. What is
told comes from the manifests and from Airflow's database: along the longest chain of tasks, the
seconds in which a step computed, those that a task took beyond its steps (the process, its imports
and its end, Airflow's own part), and those between a task and the next one. CPU is that of every
process of the home while the day ran, as far as it was collected by then.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness
from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths
from jobs.pipelines import catalog, tasks
from jobs.services import processes
from jobs.settings import PROJECT, Home

_AIRFLOW = PROJECT / ".venv-airflow" / "bin" / "python"
_SAMPLE_S = 0.5
_QUERY = """
import json, sys
import sqlalchemy as sa
rows = "select r.data_interval_start, t.task_id, t.start_date, t.end_date from task_instance t \
join dag_run r using (dag_id, run_id) where t.dag_id = 'derm_daily' and t.state = 'success'"
with sa.create_engine(sys.argv[1]).connect() as connection:
    found = connection.execute(sa.text(rows)).all()
print(json.dumps([[str(a.date()), b, c.timestamp(), d.timestamp()] for a, b, c, d in found]))
"""
_COLUMNS = ("wall_s", "work_s", "around_s", "between_s", "cpu_s", "programs")


@dataclass(frozen=True)
class Task:
    """A task as Airflow ran it; times in seconds of the epoch, `work_s` that of its steps."""

    key: str
    start: float
    end: float
    work_s: float


class Sampler(threading.Thread):
    """Watches the processes of a home: CPU seconds by time, and programs of ours that began."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self.home, self.cpu, self.begun = (
            home,
            [(time.time(), 0.0)],
            dict[tuple[int, float], float](),
        )
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            total = 0.0
            for process in processes.marked(self.home):
                try:
                    times, line = process.cpu_times(), " ".join(process.cmdline())
                    key = process.pid, process.create_time()
                except psutil.Error:
                    continue
                total += sum(times[:4])
                if _is_program(process, line):
                    self.begun.setdefault(key, time.time())
            # What ended is counted by its parent, a moment later: the sum does not fall.
            self.cpu.append((time.time(), max(total, self.cpu[-1][1])))

    def stop(self) -> None:
        self._over.set()
        self.join()

    def between(self, start: float, end: float) -> tuple[float, int]:
        """CPU seconds of a span, and programs that began in it."""
        inside = [c for t, c in self.cpu if start <= t <= end] or [0.0]
        return inside[-1] - inside[0], sum(start <= t <= end for t in self.begun.values())


def _is_program(process: psutil.Process, line: str) -> bool:
    """Whether it is an interpreter or a JVM that a task began, and no copy of another process."""
    ours = "bin/derm " in line or "pyspark.daemon" in line or "SparkSubmit" in line
    parent = process.parent()
    copied = parent is not None and "jobs.cli.warm" in " ".join(parent.cmdline())
    return ours and not copied and "bash -c" not in line and " daily" not in line


def main() -> None:
    """Run the days, print the tables."""
    parser = harness.arguments(__doc__, rounds=None)
    parser.add_argument("--version", action="append", metavar="NAME=CHECKOUT")
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="of the homes; days that are there are kept")
    args = parser.parse_args()
    versions = dict(v.split("=", 1) for v in args.version or [f"this={PROJECT}"])
    folder = args.folder or Path(tempfile.mkdtemp(prefix="derm-days-"))
    samplers: dict[tuple[str, int], Sampler] = {}
    for number in range(1, args.days + 1):
        for name, checkout in versions.items():
            samplers[name, number] = play(folder / name, Path(checkout).resolve(), number)
    found = {name: told(folder / name, name, samplers) for name in versions}
    for name, days in found.items():
        print_table(name, days)
    harness.report({"versions": found}, args)


def play(home: Path, checkout: Path, days: int) -> Sampler:
    """Publish one more day with a version; what was seen of its processes."""
    sampler = Sampler(home)
    sampler.start()
    done = subprocess.run(
        [str(checkout / ".venv" / "bin" / "derm"), "daily", "--days", str(days)],
        cwd=checkout,
        env={
            **os.environ,
            "DERM_HOME": str(home),
            "PYTHONPATH": str(checkout),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    sampler.stop()
    assert done.returncode == 0, done.stdout[-4000:]
    return sampler


def told(home: Path, name: str, samplers: dict[tuple[str, int], Sampler]) -> list[dict[str, Any]]:
    """Each day of a home: its seconds by where they went."""
    pipeline = catalog.pipeline_of(Home.load(home))
    steps = {task.key: task for task in tasks.tasks(pipeline)}
    arrows = tasks.arrows(pipeline)
    manifests = ManifestStore(HomePaths(home).manifests)
    days: list[dict[str, Any]] = []
    for number, (ds, rows) in enumerate(sorted(_airflow_tasks(home).items()), 1):
        seconds = {(m.step, m.upstream): m.duration_s for m in manifests.of_day(ds)}
        ran = {
            key: Task(key, start, end, sum(_work(steps[key], seconds)))
            for key, start, end in rows
            if key in steps
        }
        chain = longest_chain(ran, arrows)
        begun, ended = chain[0].start, chain[-1].end
        cpu, programs = samplers[name, number].between(begun, ended)
        work = sum(task.work_s for task in chain)
        inside = sum(task.end - task.start for task in chain)
        days.append(
            {
                "ds": ds,
                "wall_s": round(ended - begun, 1),
                "work_s": round(work, 1),
                "around_s": round(inside - work, 1),
                "between_s": round(ended - begun - inside, 1),
                "cpu_s": round(cpu, 1),
                "programs": programs,
                "tasks": {
                    k: [round(t.end - t.start, 2), round(t.work_s, 2)] for k, t in ran.items()
                },
                "chain": [task.key for task in chain],
            }
        )
    return days


def _work(task: tasks.Task, seconds: dict[tuple[str, str | None], float]) -> list[float]:
    found = ((step.name, task.upstream if step.per_upstream else None) for step in task.steps)
    return [seconds.get(key, 0.0) for key in found]


def longest_chain(ran: dict[str, Task], arrows: tuple[tuple[str, str], ...]) -> list[Task]:
    """From the last task to end, back over whichever task before ended last; in order of time."""
    chain = [max(ran.values(), key=lambda task: task.end)]
    while before := [ran[a] for a, b in arrows if b == chain[0].key and a in ran]:
        chain.insert(0, max(before, key=lambda task: task.end))
    return chain


def _airflow_tasks(home: Path) -> dict[str, list[tuple[str, float, float]]]:
    """What Airflow's database knows: by day, key and times of each task."""
    data = str(HomePaths(home).postgres)
    service = [str(_AIRFLOW), "-W", "ignore", "-m", "jobs.services.postgres"]
    url = _output([*service, "start", data]).strip()
    try:
        rows = json.loads(_output([str(_AIRFLOW), "-c", _QUERY, url]))
    finally:
        _output([*service, "stop", data])
    days: dict[str, list[tuple[str, float, float]]] = {}
    for ds, key, start, end in rows:
        days.setdefault(ds, []).append((key, start, end))
    return days


def _output(command: list[str]) -> str:
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command, cwd=PROJECT, env=env, capture_output=True, text=True, check=True
    ).stdout


def print_table(name: str, days: list[dict[str, Any]]) -> None:
    """The days of a version, and the tasks of its last one."""
    print(f"\n{name:12}" + "".join(f"{column.replace('_s', ' s'):>12}" for column in _COLUMNS))
    for day in days:
        print(f"{day['ds']:12}" + "".join(f"{day[column]:12}" for column in _COLUMNS))
    later = days[1:] or days
    medians = harness.medians([{column: d[column] for column in _COLUMNS} for d in later])
    print(f"{'median, 2nd on':12}" + "".join(f"{round(m, 1):12}" for m in medians.values())[2:])
    last = days[-1]
    print(f"\n{last['ds']}  {'task s':>20}{'its steps s':>14}")
    for key, (seconds, work) in last["tasks"].items():
        chained = "*" if key in last["chain"] else ""
        print(f"  {key:16}{seconds:14}{work:14} {chained}")
    print("  * in the longest chain")


if __name__ == "__main__":
    main()
