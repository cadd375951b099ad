"""Steps that are at work, and steps that ended badly: one small file each, until one succeeds.

A manifest says what finished. What did not, nobody could tell from a step that never ran: so an
attempt is written down before it begins, and what ended it afterwards. Read by status, page and
metrics, also where nothing but the standard library and pydantic is installed.
"""

import contextlib
import datetime as dt
import os
import socket
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract, Day
from feature_store.contracts.errors import DermError, GuardFailed, SpaceMismatch
from jobs.paths import HomePaths

State = Literal["running", "killed", "failed", "refused"]


class BrokenBound(Contract):
    """A number that a guard refused.

    Attributes:
        guard: its name, `<step>.<number>`.
        least: the bound is the least that may be; otherwise the most.
    """

    guard: str
    found: float
    bound: float
    least: bool = True


class Attempt(Contract):
    """One attempt of a step.

    Attributes:
        limit_s: after so many seconds somebody should look.
        refused: a guard refused the result; trying again would end the same way.
        broken: the numbers it was refused for.
        what, where, expected, found, hint: the error, as the command line printed it.
    """

    step: str
    ds: Day
    upstream: str = ""
    pid: int
    host: str
    started_at: str
    limit_s: float
    ended_at: str = ""
    refused: bool = False
    broken: tuple[BrokenBound, ...] = ()
    what: str = ""
    where: str = ""
    expected: str = ""
    found: str = ""
    hint: str = ""

    @property
    def name(self) -> str:
        """The step, and the upstream where it has one."""
        return f"{self.step} {self.upstream}".rstrip()

    @property
    def state(self) -> State:
        """`killed`: it should be running, and its process is not there (seen on its machine)."""
        if self.ended_at:
            return "refused" if self.refused else "failed"
        here = self.host == socket.gethostname()
        return "killed" if here and not Path(f"/proc/{self.pid}").exists() else "running"

    @property
    def reason(self) -> str:
        """What ended it, in one line: the number and its bound where a guard refused it."""
        if self.state == "killed":
            return "its process is gone: it was killed, or the machine restarted"
        parts = [self.what, f"found {self.found}" if self.found else ""]
        parts.append(f"expected {self.expected}" if self.expected else "")
        return "; ".join(" ".join(p.split()) for p in parts if p)

    def seconds(self, now: dt.datetime) -> float:
        """How long it has been running."""
        return (now - dt.datetime.fromisoformat(self.started_at)).total_seconds()


@contextlib.contextmanager
def attempt(
    root: Path, step: str, ds: str, upstream: str | None, *, limit_s: float
) -> Iterator[None]:
    """Write down that a step runs; afterwards nothing when it succeeded, else what ended it.

    Args:
        limit_s: after so many seconds somebody should look.
    """
    begun = Attempt(
        step=step,
        ds=ds,
        upstream=upstream or "",
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=_now(),
        limit_s=limit_s,
    )
    path = path_of(root, begun)
    write_atomic(path, begun.model_dump_json(indent=2) + "\n")
    try:
        yield
    except BaseException as error:
        if isinstance(error, DermError):
            error.step = f"{begun.name} of {ds}"
        # A disk that is full must not hide what happened.
        with contextlib.suppress(OSError):
            ended = begun.model_copy(update={"ended_at": _now(), **_said(error)})
            write_atomic(path, ended.model_dump_json(indent=2) + "\n")
        raise
    path.unlink(missing_ok=True)


def attempts(root: Path) -> tuple[Attempt, ...]:
    """Every attempt that is at work or ended badly, oldest day first; unreadable ones are none."""
    return _read(sorted(HomePaths(root).attempts.glob("*/*.json")))


def of_day(root: Path, ds: str) -> tuple[Attempt, ...]:
    """Those of one day."""
    return _read(sorted((HomePaths(root).attempts / ds).glob("*.json")))


def _read(paths: Iterable[Path]) -> tuple[Attempt, ...]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValidationError):
            found.append(Attempt.model_validate_json(path.read_bytes()))
    return tuple(found)


def path_of(root: Path, tried: Attempt) -> Path:
    """Where an attempt is recorded."""
    return HomePaths(root).attempt(tried.ds, tried.name)


def _said(error: BaseException) -> dict[str, Any]:
    if isinstance(error, DermError):
        said = {k: str(getattr(error, k)) for k in ("what", "where", "expected", "found", "hint")}
        broken = tuple(
            BrokenBound(guard=b.guard, found=b.found, bound=b.bound, least=b.least)
            for b in getattr(error, "broken", ())
        )
        refused = isinstance(error, GuardFailed | SpaceMismatch)
        return {**said, "refused": refused, "broken": broken}
    if isinstance(error, Exception):
        (line,) = traceback.format_exception_only(error)[-1:]
        return {"what": " ".join(line.split())[:1000]}
    return {"what": f"it was stopped ({type(error).__name__})"}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
