"""Folders of a step's own, for what it spills; those of steps that were killed are removed.

Each is locked for as long as its step lives, and the kernel keeps the lock: a folder that anybody
else can lock belongs to nobody any more.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from jobs.paths import HomePaths

_LOCK = ".lock"


@contextmanager
def scratch_folder(home: Path, step: str) -> Iterator[Path]:
    """An empty folder below the home, until the step ends; first, what killed ones have left goes.

    What is spilt there names users and Pins: it must not lie about until somebody looks.
    """
    root = HomePaths(home.absolute()).scratch
    root.mkdir(parents=True, exist_ok=True)
    services = HomePaths(home.absolute()).services
    services.mkdir(parents=True, exist_ok=True)
    # Nobody sweeps between the making of a folder and its lock.
    with _locked(services / "scratch.lock", fcntl.LOCK_EX):
        sweep(root)
        folder = Path(mkdtemp(prefix=f"{step}-", dir=root))
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        lock.close()


def sweep(root: Path) -> int:
    """Remove the folders whose step is dead; how many there were."""
    removed = 0
    for folder in (f for f in root.glob("*-*") if f.is_dir()):
        try:
            with _locked(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        except BlockingIOError:
            continue
    return removed


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield
