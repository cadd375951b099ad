"""Commands as copies of this process, which has imported what they need: a fork and no start-up.

As the warm process of a home makes its tasks (`jobs/services/warm.py`): each copy is a process of
its own, that can be killed, and ends as a command ends. The parent stays without threads.
"""

import contextlib
import datetime as dt
import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jobs import cli, exits
from jobs.console import bind_threads
from jobs.pipelines import daily

_MODULES = (
    *("torch._dynamo", "pyarrow.acero", "feature_store.online.stores.redis", "encodings.idna"),
    *("tests.chaos.state", *(command.module for command in cli.COMMANDS)),
)
_POLL_S = 0.005


def prepare() -> None:
    """Import what commands import, so that a copy begins at once."""
    bind_threads()
    for step in daily.STEPS:
        importlib.import_module(f"jobs.steps.{step.name}")
    for name in _MODULES:
        # Airflow is of another environment.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


@dataclass
class Copy:
    """A command that runs, or has ended."""

    pid: int
    log: Path
    code: int | None = None

    def wait(self, timeout_s: float = 900.0) -> int:
        """Its exit code; minus the signal that ended it.

        Raises:
            TimeoutError: it hangs. It is killed.
        """
        until = time.monotonic() + timeout_s
        while not self.ended():
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(self.said())
            time.sleep(_POLL_S)
        assert self.code is not None
        return self.code

    def ended(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def kill(self) -> bool:
        """SIGKILL; False when it had ended by itself."""
        if self.ended():
            return False
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        return True

    def said(self) -> str:
        """What it printed and logged."""
        return self.log.read_text(errors="replace")


def start(home: Path, *arguments: str, clock_s: float = 0.0) -> Copy:
    """Begin `derm ARGUMENTS` on a home.

    Args:
        clock_s: how far the clock that it reads is ahead of the true one.
    """
    log = home.parent / f"said-{time.monotonic_ns()}.log"
    pid = os.fork()
    if pid == 0:
        _become(home, log, arguments, clock_s)
    return Copy(pid=pid, log=log)


def derm(home: Path, *arguments: str, clock_s: float = 0.0) -> Copy:
    """Run a command to its end."""
    copy = start(home, *arguments, clock_s=clock_s)
    copy.wait()
    return copy


def must(home: Path, *arguments: str) -> str:
    """Run a command that succeeds; what it said."""
    copy = derm(home, *arguments)
    assert copy.code == 0, f"derm {' '.join(arguments)}: exit code {copy.code}\n{copy.said()}"
    return copy.said()


def in_copy(work: Callable[[], Any]) -> Any:
    """Do something in a copy: the parent stays without the threads it would begin.

    Raises:
        RuntimeError: it failed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer: dict[str, Any] = {"done": work()}
        except BaseException as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"failed": "it ended without a word"}')
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer["done"]


def _become(home: Path, log: Path, arguments: tuple[str, ...], clock_s: float) -> NoReturn:
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.update(DERM_HOME=str(home), DERM_THREADS="1", DERM_ENGINE="local")
        if clock_s:
            _shift_clock(clock_s)
        sys.argv = ["derm", *arguments]
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        exits.finish()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _shift_clock(seconds: float) -> None:
    """Let everything in this process read another time of day."""
    real_time, real_ns, moved = time.time, time.time_ns, dt.timedelta(seconds=seconds)

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Shifted":
            return super().now(tz) + moved

    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    dt.datetime = Shifted  # type: ignore[misc]
