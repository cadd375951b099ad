"""Follow days through Airflow in the terminal: bars where it has them, else lines."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from feature_store.contracts.errors import DermError
from jobs.services.airflow_api import AirflowApi, Refused, RunState, TaskState, Unreachable

# Ends that are worth a line; the tasks after a failed one are not.
TOLD = ("success", "failed", "up_for_retry")

_POLL_S = 1.0
# On a busy machine an answer may take long; a component that is gone stays gone.
_UNHEALTHY_FOR_S = 300.0
_LOG_LINES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class DayView:
    """One day as it stands in Airflow."""

    run: RunState
    tasks: tuple[TaskState, ...]

    @property
    def succeeded(self) -> int:
        """Tasks that are done."""
        return sum(t.state == "success" for t in self.tasks)

    @property
    def running(self) -> tuple[TaskState, ...]:
        """Tasks that run now."""
        return tuple(t for t in self.tasks if t.state == "running")

    @property
    def failed(self) -> tuple[TaskState, ...]:
        """Tasks that failed by themselves, not because another did."""
        return tuple(t for t in self.tasks if t.state == "failed")


class Display(Protocol):
    """Shows a day whenever it was looked at."""

    def before(self, view: DayView) -> None:
        """Take note of what was done before, which is not to be told again."""

    def show(self, view: DayView) -> None:
        """Show what changed."""


def follow(api: AirflowApi, dag_id: str, days: Sequence[str], display: Display) -> DayView | None:
    """Wait until every day has succeeded, or one has failed.

    Returns:
        The day that failed, None when all succeeded.

    Raises:
        DermError: Airflow stopped working meanwhile.
    """
    done: set[str] = set()
    health = Health(api)
    while set(days) - done:
        with health.watched():
            for run in api.runs(dag_id):
                if run.ds in done or run.ds not in days or run.state == "queued":
                    continue
                view = DayView(run=run, tasks=api.tasks(dag_id, run.run_id))
                display.show(view)
                if run.state == "failed":
                    return view
                if run.state == "success":
                    done.add(run.ds)
        time.sleep(_POLL_S)
    return None


class Health:
    """Notices when Airflow does not only answer slowly, but has stopped working."""

    def __init__(self, api: AirflowApi) -> None:
        self._api = api
        self._seen_at = time.monotonic()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask Airflow things; that it does not answer is forgiven for a while. Then look at it.

        Raises:
            Refused: it answered, and refused.
            DermError: for minutes it has not answered, or a component was missing.
        """
        try:
            yield
            found = self._api.unhealthy()
        except Refused:
            raise
        except Unreachable as error:
            found = (error.found,)
        if not found:
            self._seen_at = time.monotonic()
        elif time.monotonic() - self._seen_at > _UNHEALTHY_FOR_S:
            raise DermError(
                "Airflow stopped working",
                where=self._api.url,
                expected=f"an answer, and every component, within {_UNHEALTHY_FOR_S:.0f} s",
                found=f"not healthy: {', '.join(found)}",
                hint="make down, then the same command again: it takes up where it was",
            )


def explain(api: AirflowApi, dag_id: str, view: DayView, console: Console) -> None:
    """Print the end of the log of each task that failed."""
    for task in view.failed:
        console.rule(f"{view.run.ds} {task.key} failed", align="left")
        lines = api.log(dag_id, view.run.run_id, task)
        begin = next((i for i, x in enumerate(lines) if x.startswith("Running command")), 0)
        for line in [x for x in lines[begin:] if not x.startswith("::")][-_LOG_LINES:]:
            console.print(line, markup=False, soft_wrap=True)
    console.rule()


@contextmanager
def terminal(console: Console, days: Sequence[str], num_tasks: int) -> Iterator[Display]:
    """The display that suits the console."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[elapsed]:>6}"),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress, days, num_tasks)


class _Lines:
    """A line per task that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: set[tuple[str, TaskState]] = set()

    def before(self, view: DayView) -> None:
        self._told |= {(view.run.ds, task) for task in view.tasks if task.state in TOLD}

    def show(self, view: DayView) -> None:
        for task in view.tasks:
            told = (view.run.ds, task)
            if task.state in TOLD and told not in self._told:
                self._told.add(told)
                seconds = "" if task.duration_s is None else f"{task.duration_s:6.1f} s"
                self._console.print(f"{view.run.ds}  {task.key:16} {task.state:16}{seconds}")


class _Bars:
    """A bar per day, with what runs now beside it."""

    def __init__(self, progress: Progress, days: Sequence[str], num_tasks: int) -> None:
        self._progress = progress
        self._started: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {
            ds: progress.add_task(ds, total=num_tasks, elapsed="", now="") for ds in days
        }

    def before(self, view: DayView) -> None:
        """A bar begins where the day stands."""

    def show(self, view: DayView) -> None:
        started = self._started.setdefault(view.run.ds, time.monotonic())
        failed = ", ".join(f"{t.key} failed" for t in view.failed)
        self._progress.update(
            self._bars[view.run.ds],
            completed=view.succeeded,
            elapsed=f"{time.monotonic() - started:.0f} s",
            now=failed or ", ".join(t.key for t in view.running),
        )
