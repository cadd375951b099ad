"""One task per bucket, on Spark or in this process: the same function, files and bits.

On Spark the bucket travels as data: a task's number is never its bucket.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from feature_store.contracts.errors import DermError
from feature_store.lake.storage import size_of

if TYPE_CHECKING:
    from pyspark import SparkContext


class BucketTask(Protocol):
    """Work on one bucket of one table. `key` names it, and comes back with its result."""

    @property
    def key(self) -> tuple[str, int]:
        """Table and bucket."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Addresses of the files it reads."""
        ...


T = TypeVar("T", bound=BucketTask)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Done(Generic[R]):
    key: tuple[str, int]
    result: R | None
    error: DermError | None


def run_tasks(spark: "SparkContext", function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """Run `function` on every task, each in a Spark partition of its own.

    Returns:
        The results, in the order of `tasks`.

    Raises:
        DermError: a task raised it; it comes through as it was, and is not retried.
        RuntimeError: Spark did not return exactly one result per task.
    """
    rows = spark.parallelize(tasks, max(len(tasks), 1))
    finished: list[_Done[R]] = rows.mapPartitions(lambda part: _run(function, part)).collect()
    by_key = {done.key: done for done in finished}
    expected = [task.key for task in tasks]
    if sorted(d.key for d in finished) != sorted(expected) or len(by_key) != len(expected):
        raise RuntimeError(f"expected results of {expected}, found {sorted(by_key)}")
    results = [by_key[key] for key in expected]
    for done in results:
        if done.error is not None:
            raise done.error
    return [done.result for done in results]  # type: ignore[misc]


def run_here(function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """Run `function` on every task in this process, one after the other: one bucket in memory."""
    return [function(task) for task in tasks]


def bytes_read(tasks: Iterable[BucketTask]) -> int:
    """Bytes on disk of what the tasks read; a file that several of them read counts once."""
    return size_of({file for task in tasks for file in task.reads})


@lru_cache(maxsize=1)
def _settle() -> None:
    """Once per worker: exempt what its first task has loaded from the collection after every task.

    Spark's worker collects all garbage when a task has ended. Modules are imported as the task is
    unpickled and run, so this comes after it: before, it would exempt next to nothing.
    """
    gc.collect()
    gc.freeze()


def _run(function: Callable[[T], R], part: Iterable[T]) -> Iterator[_Done[R]]:
    for task in part:
        try:
            yield _Done(task.key, function(task), None)
        except DermError as error:
            yield _Done(task.key, None, error)
    _settle()
