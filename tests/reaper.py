"""What a test started ends with it, however the test ends: processes carry the mark of their run.

Everything a test starts inherits the mark, also where it makes a session of its own (Airflow, the
embedded Redis) or changes its user (PostgreSQL). Redis writes its title over the mark: the folder
that it runs in says whose it is. A test that fails half way leaves nothing to those
after it, a run leaves nothing, and what a run that was killed has left ends when the next begins.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "DERM_TESTS_OF"
_GRACE_S = 5.0


def mark() -> str:
    """The mark of this run: the process that is pytest, and when it began."""
    me = psutil.Process()
    return f"{me.pid}@{me.create_time():.2f}"


def claim(folder: Path) -> None:
    """Say of a folder that what runs below it belongs to this run."""
    (folder / MARK).write_text(mark())


def left_by(run: str) -> list[psutil.Process]:
    """Living processes that a run of tests has started, itself excepted."""
    return [p for p, of in _marked() if of == run and p.pid != os.getpid()]


def orphans() -> list[psutil.Process]:
    """Living processes of runs that are gone."""
    return [p for p, of in _marked() if not _lives(of)]


def now() -> float:
    """The clock that `began` is read from, to a hundredth of a second: seconds since the boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - 1 / os.sysconf("SC_CLK_TCK")


def began(process: psutil.Process) -> float:
    """When a process began; infinite when it is gone."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return float("inf")
    # Its name, in brackets, may hold anything; the 22nd field is the time.
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def reap(processes: Iterable[psutil.Process]) -> list[str]:
    """Ask processes to end, then end those that did not; say which they were."""
    found = [(p, _name(p)) for p in processes]
    for process, _ in found:
        _send(process, "terminate")
    _, alive = psutil.wait_procs([p for p, _ in found], timeout=_GRACE_S)
    for process in alive:
        _send(process, "kill")
    psutil.wait_procs(alive, timeout=_GRACE_S)
    return [name for _, name in found]


def _marked() -> list[tuple[psutil.Process, str]]:
    found = []
    for process in psutil.process_iter():
        try:
            of = process.environ().get(MARK) or _claimed(Path(process.cwd()))
        except (psutil.Error, OSError):
            continue  # another user's, or gone since
        if of:
            found.append((process, of))
    return found


def _claimed(folder: Path) -> str:
    """The run that a folder belongs to, or one above it."""
    claims = (above / MARK for above in (folder, *folder.parents))
    return next((claim.read_text() for claim in claims if claim.is_file()), "")


def _lives(run: str) -> bool:
    pid, _, began = run.partition("@")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except (psutil.Error, ValueError):
        return False


def _name(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)


def _send(process: psutil.Process, signal: str) -> None:
    try:
        getattr(process, signal)()
    except psutil.NoSuchProcess:
        return
