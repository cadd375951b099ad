"""Where tasks run: by the size of what they read, unless somebody says."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from feature_store.spark.tasks import bytes_read, run_here
from jobs.settings import Settings
from jobs.steps import aggregation
from jobs.steps.aggregation import engine_of


@dataclass(frozen=True)
class Task:
    """Reads two files."""

    number: int
    reads: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        return "table", self.number


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Three tasks with a file each of 100 bytes, and one of 50 that all of them read."""
    for name, size in (("0", 100), ("1", 100), ("2", 100), ("all", 50)):
        (tmp_path / name).write_bytes(b"x" * size)
    return [Task(n, (str(tmp_path / str(n)), str(tmp_path / "all"))) for n in range(3)]


def test_a_file_counts_once_and_one_that_is_gone_not_at_all(tasks: list[Task]) -> None:
    assert bytes_read(tasks) == 350
    Path(tasks[0].reads[0]).unlink()
    assert bytes_read(tasks) == 250
    assert bytes_read([]) == 0


def test_a_large_day_is_sparks_and_a_small_one_is_not(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DERM_ENGINE", raising=False)
    settings = Settings(home=tmp_path)
    assert engine_of(settings, tasks) == "local"
    monkeypatch.setattr(aggregation, "LOCAL_BYTES", 350)
    assert engine_of(settings, tasks) == "local"
    monkeypatch.setattr(aggregation, "LOCAL_BYTES", 349)
    assert engine_of(settings, tasks) == "spark"


def test_somebody_may_say(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERM_ENGINE", "spark")
    assert engine_of(Settings(), tasks) == "spark"
    monkeypatch.setenv("DERM_ENGINE", "local")
    monkeypatch.setattr(aggregation, "LOCAL_BYTES", 0)
    assert engine_of(Settings(), tasks) == "local"


def test_results_come_in_the_order_of_the_tasks(tasks: list[Task]) -> None:
    assert run_here(lambda task: task.number, tasks[::-1]) == [2, 1, 0]
