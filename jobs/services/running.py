"""A command as a process: a copy of the home's warm process where there is one, else a new one.

Both run the same command line, with this process's environment, in a session of their own, and end
with its exit code. Standard library only: Airflow's processes use it.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from jobs.services import warm_socket

_PATIENCE_S = 10.0
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
# What is known of a process that ended while nobody was left to say how.
_KILLED = -int(signal.SIGKILL)


@dataclass(kw_only=True)
class Running:
    """A process that runs a command.

    Attributes:
        how: what it is, for the log.
        pid: of the process, and of its session.
        output: everything it prints.
    """

    how: str
    pid: int
    output: IO[bytes]
    _process: subprocess.Popen[bytes] | None = None
    _asked: socket.socket | None = field(default=None, repr=False)
    _ended: bool = False

    def lines(self) -> Iterator[str]:
        """What it prints, line by line, until nobody holds its output open."""
        for line in iter(self.output.readline, b""):
            yield line.decode(errors="backslashreplace").rstrip()

    def wait(self) -> int:
        """Its exit code; negative: the signal that killed it."""
        self.output.close()
        code = self._process.wait() if self._process else self._told()
        self._ended = True
        return code

    def _told(self) -> int:
        assert self._asked  # noqa: S101
        self._asked.settimeout(None)
        with self._asked:
            try:
                return int(warm_socket.receive(self._asked)[0]["code"])
            except (EOFError, OSError):
                return _KILLED

    def terminate(self) -> None:
        """Ask it, and what it started, to end; nothing where it has ended."""
        if self._ended:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)


def begin(command: str) -> Running:
    """Begin a command of the shell; a `derm` command in a copy of the warm process."""
    return _copied(command) or _begun(command)


def _begun(command: str) -> Running:
    process = subprocess.Popen(
        ["/bin/bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout  # noqa: S101
    return Running(
        how=f"process {process.pid}",
        pid=process.pid,
        output=process.stdout,
        _process=process,
    )


def _copied(command: str) -> Running | None:
    """The command in a copy of the warm process of its home; None when it has to be begun anew."""
    parsed = parse(command)
    if parsed is None or not (home := parsed[0].get("DERM_HOME")):
        return None
    environment, arguments = parsed
    request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
    read, write = os.pipe()
    asker: socket.socket | None = None
    try:
        asker = warm_socket.connect(warm_socket.path(Path(home)), _PATIENCE_S)
        warm_socket.send(asker, request, write)
        answer, _ = warm_socket.receive(asker)
        pid = int(answer["pid"])
        # A copy that nobody tells to go ends: after this there is no second process to fear.
        warm_socket.send(asker, {"go": True})
    except (OSError, EOFError, ValueError, KeyError):
        os.close(read)
        if asker:
            asker.close()
        return None
    finally:
        os.close(write)
    return Running(
        how=f"process {pid}, a copy of the warm one",
        pid=pid,
        output=os.fdopen(read, "rb"),
        _asked=asker,
    )


def parse(command: str) -> tuple[dict[str, str], list[str]] | None:
    """Environment and words of a command that says no more than those; None for a shell's work."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    environment, plain = dict(os.environ), list[str]()
    while words and (found := _VARIABLE.fullmatch(words[0])):
        name, value = found.groups()
        environment[name] = value
        plain.append(f"{name}={shlex.quote(value) if value else ''}")
        words.pop(0)
    plain += [shlex.quote(word) for word in words]
    return (environment, words) if words and " ".join(plain) == command else None
