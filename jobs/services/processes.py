"""Background processes that belong to one home, and how to be sure that none is left.

Each carries a mark in its environment, which everything it starts inherits: the processes of a home
can be found again by anyone, also after the program that started them was killed, and also where
a child made a session of its own.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

MARK = "DERM_SERVICE_OF"

_GRACE_S = 8.0


def spawn(command: Sequence[str], *, home: Path, env: Mapping[str, str], log: Path) -> None:
    """Start a process in a session of its own, marked with `home`, its output going to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.Popen(
            list(command),
            # SPT_NOENV: a process that renames itself would otherwise overwrite its environment.
            env={**env, MARK: str(home), "SPT_NOENV": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked(home: Path) -> list[psutil.Process]:
    """Every living process marked with `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # another user's, or gone since
    return found


def stop(home: Path) -> None:
    """Ask every process marked with `home` to end, then end those that did not."""
    processes = marked(home)
    for process in processes:
        _send(process, "terminate")
    psutil.wait_procs(processes, timeout=_GRACE_S)
    for process in remaining if (remaining := marked(home)) else ():
        _send(process, "kill")
    psutil.wait_procs(remaining, timeout=_GRACE_S)


def _send(process: psutil.Process, signal: str) -> None:
    try:
        getattr(process, signal)()
    except psutil.NoSuchProcess:
        return
