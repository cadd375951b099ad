"""What is said between a warm process and those who ask it for a copy. Standard library only.

Messages are JSON, a line each.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_store.tables.address import short_name
from jobs.paths import HomePaths

_LONGEST = 1 << 20


def path(home: Path) -> Path:
    """Where a home's warm process listens."""
    return HomePaths(home.absolute()).warm_socket


def listen(at: Path) -> socket.socket:
    """A socket that only this user may connect to."""
    at.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_name(at) as address:
            server.bind(address)
    finally:
        os.umask(before)
    server.listen()
    return server


def connect(at: Path, timeout_s: float) -> socket.socket:
    """A connection to who listens there.

    Raises:
        OSError: nobody does.
    """
    asker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asker.settimeout(timeout_s)
    try:
        with short_name(at) as address:
            asker.connect(address)
    except OSError:
        asker.close()
        raise
    return asker


def send(to: socket.socket, message: Mapping[str, Any], pipe: int | None = None) -> None:
    """Send a message, and the end of a pipe with it.

    Raises:
        OSError: the other side is gone.
    """
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(to, [line], [pipe]) if pipe is not None else 0
    to.sendall(line[sent:])


def receive(asker: socket.socket) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The next message, and what descriptors came with it.

    Raises:
        OSError: none came in time.
        ValueError: it is none of ours.
        EOFError: the other side is gone.
    """
    line, pipes, _, _ = socket.recv_fds(asker, _LONGEST, 1)
    while not line.endswith(b"\n"):
        more = asker.recv(_LONGEST)
        if not more or len(line) > _LONGEST:
            for pipe in pipes:
                os.close(pipe)
            raise EOFError
        line += more
    message: dict[str, Any] = json.loads(line.splitlines()[0])
    return message, tuple(pipes)
