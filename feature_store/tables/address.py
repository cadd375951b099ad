"""Where a shard listens: a unix socket of this machine, or a port. Standard library only."""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feature_store.contracts.errors import InputError

_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Address:
    """Where a shard listens.

    Attributes:
        path: of a unix socket; None for a port.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`unix:///a/path` or `tcp://host:port`.

        Raises:
            InputError: it is neither.
        """
        kind, _, rest = text.partition("://")
        host, _, port = rest.rpartition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls(path=Path(rest))
        if kind == "tcp" and host and port.isdecimal() and int(port) < 2**16:
            return cls(host=host.strip("[]"), port=int(port))
        raise InputError(
            "the address of a shard is malformed",
            expected="unix:///a/path or tcp://host:port",
            found=text,
        )

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether nobody but this machine, or this user, can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection.

        Raises:
            OSError: nobody listens there.
        """
        if self.path is None:
            link = socket.create_connection((self.host, self.port), timeout_s)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return link
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(timeout_s)
        try:
            with short_name(self.path) as name:
                link.connect(name)
        except OSError:
            link.close()
            raise
        return link

    def listen(self) -> socket.socket:
        """A socket to accept connections from; a unix socket is this user's alone.

        Raises:
            InputError: somebody else listens there.
            OSError: nobody may.
        """
        if self.path is None:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            try:
                return socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
            except OSError as error:
                raise self._taken(error) from error
        with contextlib.suppress(OSError):
            self.connect(1.0).close()
            raise self._taken("a process that answers")
        # Nobody answers: it is what a killed process has left.
        self.path.unlink(missing_ok=True)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            with short_name(self.path) as name:
                server.bind(name)
        finally:
            os.umask(before)
        server.listen(_BACKLOG)
        return server

    def _taken(self, found: object) -> InputError:
        return InputError(
            "a shard cannot listen at its address",
            where=str(self),
            found=str(found),
            hint="one process serves a shard: is it running already? derm tables status",
        )


@contextlib.contextmanager
def short_name(at: Path) -> Iterator[str]:
    """A name for a unix socket, through a descriptor of its folder.

    An address holds a hundred characters, and folders may lie deeper.
    """
    folder = os.open(at.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{at.name}"
    finally:
        os.close(folder)
