"""Who may change a home: any number of steps at once, or one repair alone.

Steps of a day hold the lock together; a command that rewrites days behind them (backfill, retain,
forget, rebucket) holds it alone. So a repair begins when nothing runs, and nothing begins until it
has ended. The kernel keeps the lock: whoever is killed lets go. What a repair leaves half done then
is guarded by its record (`jobs.engine.unfinished`): steps of the days it recomputes are refused.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import StoreError
from jobs.engine import unfinished
from jobs.paths import HomePaths
from jobs.settings import Home

log = logging.getLogger("derm")

_POLL_S = 0.2
_SAY_EVERY_S = 30.0


@contextmanager
def together(home: Path, ds: str, *, from_its_gate: bool = False) -> Iterator[None]:
    """Change days of the home up to `ds`, beside other steps; wait while somebody has it alone.

    A repair takes back what a day under way has made. So whoever is past the gate gives up when one
    has begun, instead of waiting, maybe for days, for results that will be gone.

    Args:
        from_its_gate: the day begins here, so it may wait for a repair.

    Raises:
        InputError: it is not a home.
        GuardFailed: a repair of these days, or of days before them, is not finished.
    """
    with _lock_file(home) as file:
        if from_its_gate:
            _acquire(file, fcntl.LOCK_SH)
        else:
            _acquire(file, fcntl.LOCK_SH, lambda: unfinished.refuse(home, ds))
        unfinished.refuse(home, ds)
        yield


@contextmanager
def reading(home: Path) -> Iterator[None]:
    """Read what days have written, beside steps; wait while somebody has the home alone.

    Raises:
        InputError: it is not a home.
    """
    with _lock_file(home) as file:
        _acquire(file, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(home: Path, what: str) -> Iterator[None]:
    """Have the home alone; wait until no step runs.

    Args:
        what: what is being done, for those who wait.

    Raises:
        InputError: it is not a home.
    """
    with _lock_file(home) as file:
        _acquire(file, fcntl.LOCK_EX)
        _describe(file, {"what": f"{what} has the pipeline alone", "pid": os.getpid()})
        try:
            yield
        finally:
            _describe(file, None)


@contextmanager
def step_alone(home: Path, ds: str, step: str, upstream: Upstream | None) -> Iterator[None]:
    """Be the only one that runs a step of a day; wait for whoever does, and say who it is.

    Afterwards the other's result is usually current, and there is nothing left to do.
    """
    name = " ".join(filter(None, (ds, step, upstream)))
    path = HomePaths(home).step_lock(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _own_file(path, f"{name} is run") as file:
        _describe(file, {"what": f"{name} is run", "pid": os.getpid()})
        try:
            yield
        finally:
            # Whoever waits notices that this is not the file any more.
            path.unlink(missing_ok=True)


@contextmanager
def _own_file(path: Path, what: str) -> Iterator[TextIO]:
    """The locked file of a name, whoever has removed it while it was waited for."""
    while True:
        with path.open("a+") as file:
            _acquire(file, fcntl.LOCK_EX, nobody=what)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield file
                return


@contextmanager
def slots(home: Path, *upstreams: Upstream) -> Iterator[None]:
    """Have the online store's slots of some upstreams alone: to write them, or to move the pointer.

    Nobody waits: what the second would do depends on what the first makes of the slots.

    Raises:
        StoreError: somebody else has them; a killed one lets go by itself.
    """
    with ExitStack() as held:
        for upstream in upstreams:
            path = HomePaths(home).publish_lock(upstream)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                fcntl.flock(held.enter_context(path.open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"another publish of {upstream} is running, or a release or a rollback",
                    where=str(path),
                    hint="wait for it, then do the same again",
                ) from error
        yield


@contextmanager
def _lock_file(home: Path) -> Iterator[TextIO]:
    Home.load(home)
    path = HomePaths(home).pipeline_lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        yield file


def _acquire(
    file: TextIO,
    kind: int,
    look: Callable[[], None] = lambda: None,
    nobody: str = "steps of a day are running",
) -> None:
    """Take the lock, saying from time to time who is in the way; `look` may give up by raising."""
    said = -_SAY_EVERY_S
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                log.info("waiting: %s", _in_the_way(file, nobody))
            look()
            time.sleep(_POLL_S)
        else:
            return


def _in_the_way(file: TextIO, nobody: str) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except json.JSONDecodeError:
        return nobody
    return f"{holder['what']} (process {holder['pid']})"


def _describe(file: TextIO, holder: dict[str, str | int] | None) -> None:
    file.seek(0)
    file.truncate()
    if holder:
        file.write(json.dumps(holder))
    file.flush()
