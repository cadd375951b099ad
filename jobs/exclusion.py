"""Who may change a home: any number of steps at once, or one repair alone.

Steps of a day hold the lock together; a command that rewrites days behind them (backfill, retain,
forget, rebucket) holds it alone. So a repair begins when nothing runs, and nothing begins until it
has ended. The kernel keeps the lock: whoever is killed lets go.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from jobs.settings import Home

log = logging.getLogger("derm")

_POLL_S = 0.2
_SAY_EVERY_S = 30.0


@contextmanager
def together(home: Path) -> Iterator[None]:
    """Change one day of the home, beside other steps; wait while a repair has it alone.

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
        _describe(file, {"what": what, "pid": os.getpid()})
        try:
            yield
        finally:
            _describe(file, None)


@contextmanager
def _lock_file(home: Path) -> Iterator[TextIO]:
    Home.load(home)
    path = home / "services" / "pipeline.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        yield file


def _acquire(file: TextIO, kind: int) -> None:
    """Take the lock, saying from time to time who is in the way."""
    said = -_SAY_EVERY_S
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                log.info("waiting: %s", _in_the_way(file))
            time.sleep(_POLL_S)
        else:
            return


def _in_the_way(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except json.JSONDecodeError:
        return "steps of a day are running"
    return f"{holder['what']} (process {holder['pid']}) has the pipeline alone"


def _describe(file: TextIO, holder: dict[str, str | int] | None) -> None:
    file.seek(0)
    file.truncate()
    if holder:
        file.write(json.dumps(holder))
    file.flush()
