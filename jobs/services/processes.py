"""Background processes that belong to one home, and how to be sure that none is left.

Each carries a mark in its environment, which everything it starts inherits: the processes of a home
can be found again by anyone, also after the program that started them was killed, and also where
a child made a session of its own.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from feature_store.contracts.errors import StoreError
from jobs.services.private import append_private

MARK = "DERM_SERVICE_OF"


def spawn(command: Sequence[str], *, home: Path, env: Mapping[str, str], log: Path) -> None:
    """Start a process in a session of its own, marked with `home`, its output going to `log`.

    Only the owner may read the log: servers print what they are told.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with append_private(log) as output:
        process = subprocess.Popen(
            list(command),
            # SPT_NOENV: a process that renames itself would otherwise overwrite its environment.
            env={**env, MARK: str(home), "SPT_NOENV": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it is meant to outlive this program: Popen need not warn about it


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


def stop(home: Path, *, grace_s: float = 8.0) -> None:
    """Ask every process marked with `home` to end; after `grace_s`, end those that did not."""
    for what in ("terminate", "kill"):
        processes = marked(home)
        for process in processes:
            _send(process, what)
        psutil.wait_procs(processes, timeout=grace_s)


def interrupt(record: Path, name: str, *, grace_s: float = 30.0) -> None:
    """Ask the process whose id is the first line of a file to end, and wait; if it is `name`.

    Raises:
        StoreError: it does not end.
    """
    try:
        process = psutil.Process(int(record.read_text().splitlines()[0]))
        if process.name() == name:
            process.send_signal(signal.SIGINT)
            process.wait(grace_s)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return  # the record is older than the last start of this machine
    except psutil.TimeoutExpired as error:
        raise StoreError(
            f"{name} does not end", where=str(record), found=f"alive after {grace_s:.0f} s"
        ) from error


def _send(process: psutil.Process, what: str) -> None:
    try:
        getattr(process, what)()
    except psutil.NoSuchProcess:
        return
