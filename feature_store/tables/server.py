"""A shard as a process: one thread answers, another reads versions; files are only ever mapped.

What it does with what it is told is in feature_store/tables/serving.py.
"""

import contextlib
import logging
import queue
import selectors
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import DermError
from feature_store.tables.address import Address
from feature_store.tables.ledger import FileLedger
from feature_store.tables.manifest import MANIFEST, read_version
from feature_store.tables.serving import ShardCore
from feature_store.tables.shard import open_shard
from feature_store.tables.wire import BrokenFrame, Frame, FrameReader

log = logging.getLogger("derm")

_RECEIVE = 1 << 18
# So many look-ups of one turn are answered; more have waited too long already.
_TURN = 512
_FOLLOW_S = 1.0
_REPORT_S = 15.0
_LARGEST_BACKLOG = 1 << 26


class _Connection:
    """One ranker."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self.link, self.reader, self.out = link, FrameReader(), bytearray()

    def flush(self) -> None:
        """Send what can be sent.

        Raises:
            OSError: the other side is gone.
        """
        while self.out:
            try:
                sent = self.link.send(self.out)
            except BlockingIOError:
                return
            del self.out[:sent]


class ShardServer:
    """Serves one shard of the versions below a folder.

    Args:
        root: the folder of all versions and of the ledger.
        token: what changes must carry; needed where others than this machine reach the address.
        report: is told the status now and then.

    Raises:
        InputError: somebody else listens at the address.
    """

    def __init__(
        self,
        root: Path,
        shard: int,
        shards: int,
        address: Address,
        *,
        token: str = "",
        report: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.root, self.address = root, address
        self.ledger = FileLedger(root)
        self.core = ShardCore(shard, shards, boot=uuid.uuid4().hex[:12], token=token)
        self._listener = address.listen()
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._read: deque[Callable[[], None]] = deque()
        self._connections: set[_Connection] = set()
        self._seen: dict[str, float] = {}
        self._stopping, self._report, self._report_at = False, report, 0.0

    def stop(self) -> None:
        """Let `run` return; may be called from a signal handler or another thread."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def run(self) -> None:
        """Serve until somebody calls `stop`."""
        reader = threading.Thread(target=self._read_versions, daemon=True)
        reader.start()
        self.core.begin(self.ledger.pointer(), self.ledger.intent())
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        due = time.monotonic() + _FOLLOW_S
        try:
            while not self._stopping:
                self._hand_out()
                events = self._selector.select(max(due - time.monotonic(), 0))
                self._turn(events)
                if time.monotonic() >= due:
                    self._follow()
                    self._tell()
                    due = time.monotonic() + _FOLLOW_S
        finally:
            self._jobs.put(None)
            self._close()

    def _turn(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Answer whatever has come; first all that is read, so that a flood is seen as one."""
        asked: list[tuple[_Connection, Frame]] = []
        for key, mask in events:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                self._take_in()
            else:
                connection: _Connection = key.data
                if mask & selectors.EVENT_READ:
                    asked += [(connection, frame) for frame in self._receive(connection)]
                if mask & selectors.EVENT_WRITE:
                    self._flush(connection)
        for number, (connection, frame) in enumerate(asked):
            answer = self.core.handle(frame, overloaded=number >= _TURN)
            connection.out += answer.pack()
        for connection in {id(c): c for c, _ in asked}.values():
            self._flush(connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            link, _ = self._listener.accept()
            if self.address.path is None:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(link)
            self._connections.add(connection)
            self._selector.register(link, selectors.EVENT_READ, connection)

    def _receive(self, connection: _Connection) -> list[Frame]:
        try:
            data = connection.link.recv(_RECEIVE)
            if data:
                return list(connection.reader.feed(data))
        except BlockingIOError:
            return []
        except OSError:
            pass
        except BrokenFrame as error:
            log.warning("a connection was closed: %s", error)
        self._drop(connection)
        return []

    def _flush(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        try:
            connection.flush()
        except OSError:
            self._drop(connection)
            return
        if len(connection.out) > _LARGEST_BACKLOG:
            log.warning("a ranker does not read its answers; its connection was closed")
            self._drop(connection)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
        if self._selector.get_key(connection.link).events != mask:
            self._selector.modify(connection.link, mask, connection)

    def _drop(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._selector.unregister(connection.link)
            connection.link.close()

    def _hand_out(self) -> None:
        for version in self.core.take_wanted():
            self._jobs.put(version)

    def _take_in(self) -> None:
        """What the reading thread has done, taken in by the one that answers."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._read:
            self._read.popleft()()

    def _read_versions(self) -> None:
        """The other thread: map versions, after comparing every byte of them."""
        while (version := self._jobs.get()) is not None:
            self._read.append(self._opened(version))
            with contextlib.suppress(OSError):
                self._wake.send(b"!")

    def _opened(self, version: str) -> Callable[[], None]:
        try:
            data = open_shard(self.root, version, self.core.shard, self.core.shards)
        except DermError as error:
            problem = error
            log.warning("version %s cannot be served: %s", version, problem)
            return lambda: self.core.failed(version, problem)
        return lambda: self.core.loaded(data)

    def _follow(self) -> None:
        """Look whether something was published, or forgotten, without this shard being told."""
        try:
            self.core.heard(self.ledger.pointer())
            for version, held in self.core.held.items():
                changed = (self.root / version / MANIFEST).stat().st_mtime if held.data else 0.0
                if changed and self._seen.get(version) != changed:
                    self.core.revised(version, read_version(self.root, version).revision)
                    self._seen[version] = changed
        except (DermError, OSError) as error:
            # What is served stays; `derm tables status` and whoever publishes find the cause.
            log.warning("the ledger or a manifest cannot be read now: %s", error)

    def _tell(self) -> None:
        if time.monotonic() < self._report_at:
            return
        self._report_at = time.monotonic() + _REPORT_S
        try:
            self._report(self.core.status())
        except OSError as error:
            log.warning("the status could not be written: %s", error)

    def _close(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        for end in (self._listener, self._wake, self._woken):
            end.close()
        self._selector.close()
        if self.address.path:
            self.address.path.unlink(missing_ok=True)
