"""Redis as the online store: one server or a cluster, over TCP, TLS or a unix socket.

Writes are raw RESP on one connection per writer and node, a window deep: the next rows are
assembled while the server works on the last ones. Errors come back as StoreError with what to do.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_store.contracts.errors import InputError
from feature_store.online.stores import resp
from feature_store.online.stores.cluster import slots_of
from feature_store.online.stores.redis_errors import typed_errors
from feature_store.online.stores.redis_files import rewrite_files

_TIMEOUT_S = 30.0
_ROWS_PER_SEND = 2048
_WINDOW = 8
_SCAN_COUNT = 2000

Node = tuple[str, int]


class RedisStore:
    """The store behind a URL: redis://, rediss:// (TLS) or unix://, with ACL user and password.

    Args:
        batch: keys per command; 256 keeps the latency of other clients low.
        bytes_per_s: bandwidth limit of all writers together; 0 is none.
    """

    def __init__(self, url: str, *, batch: int = 256, bytes_per_s: int = 0) -> None:
        self._options = {
            "socket_timeout": _TIMEOUT_S,
            "socket_connect_timeout": 5.0,
            "protocol": 2,
            **_parse_url(url),
        }
        self._batch = batch
        self._client: Any = self._connect({})
        self.location = _location(self._options)
        self._limit = _Limit(bytes_per_s)
        self._nodes: tuple[Node, ...] | None = None
        self._clients: list[Any] = []
        self._owner = np.zeros(0, np.int16)

    def get(self, key: str) -> bytes | None:
        """One metadata value."""
        with typed_errors(self.location):
            value: bytes | None = self._of(key).get(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Set one metadata value; SET is atomic."""
        with typed_errors(self.location):
            self._of(key).set(key, value)

    def delete(self, key: str) -> None:
        """Remove one metadata value."""
        with typed_errors(self.location):
            self._of(key).delete(key)

    def writer(self, prefix: str) -> "RedisWriter":
        """A writer with connections of its own."""
        with typed_errors(self.location):
            pools = [client.connection_pool for client in self._primaries()]
        return RedisWriter(prefix, pools, self._owner, batch=self._batch, limit=self._limit)

    def seal(self, prefix: str) -> None:
        """Nothing to do: what Redis has acknowledged is readable."""

    def wipe(self, prefix: str) -> None:
        """Remove every key below a prefix, on every node."""
        with typed_errors(self.location):
            for client in self._primaries():
                for keys in _scan(client, prefix):
                    if keys:
                        pipe = client.pipeline(transaction=False)
                        for key in keys:
                            pipe.unlink(key)
                        pipe.execute()

    def slots(self) -> tuple[str, ...]:
        """The prefixes of all user keys; every key is looked at."""
        found: set[bytes] = set()
        with typed_errors(self.location):
            for client in self._primaries():
                for keys in _scan(client, "derm:"):
                    found |= {b":".join(k.split(b":", 4)[:4]) for k in keys if k.count(b":") > 3}
        others = (b"derm:slot", b"derm:release")
        return tuple(sorted(f.decode() + ":" for f in found if not f.startswith(others)))

    def erase(self, prefix: str, ids: pa.Array) -> None:
        """UNLINK; nothing waits to be sealed here."""
        with self.writer(prefix) as writer:
            writer.remove(ids)

    def purge(self) -> tuple[str, ...]:
        """Write the snapshot, and the append-only file, of every node anew; wait for it."""
        with typed_errors(self.location):
            return tuple(left for client in self._primaries() for left in rewrite_files(client))

    def read(self, prefix: str, ids: Sequence[str]) -> list[bytes | None]:
        """One MGET per node."""
        keys = [prefix + i for i in ids]
        with typed_errors(self.location):
            if not self._topology():
                return list(self._client.mget(keys)) if keys else []
            values: list[bytes | None] = [None] * len(keys)
            owners = self._owner[slots_of(b"", pa.array(keys, pa.string()))]
            for node, client in enumerate(self._primaries()):
                mine = np.flatnonzero(owners == node)
                pipe = client.pipeline(transaction=False)
                for row in mine:
                    pipe.get(keys[row])
                for row, value in zip(mine, pipe.execute(), strict=True):
                    values[row] = value
        return values

    def sample(self, prefix: str, limit: int) -> list[str]:
        """The first ids that SCAN meets."""
        found: list[str] = []
        with typed_errors(self.location):
            for client in self._primaries():
                for keys in _scan(client, prefix):
                    found += [k.decode()[len(prefix) :] for k in keys]
                    if len(found) >= limit:
                        return found[:limit]
        return found

    def keys(self) -> int:
        """DBSIZE of every primary."""
        with typed_errors(self.location):
            return sum(int(client.dbsize()) for client in self._primaries())

    def _connect(self, changes: dict[str, Any]) -> Any:
        pool = redis.ConnectionPool(**{**self._options, **changes, "retry": Retry(NoBackoff(), 0)})
        return redis.Redis(connection_pool=pool)

    def _topology(self) -> tuple[Node, ...]:
        """The primaries of a cluster; empty for a single server."""
        if self._nodes is None:
            self._nodes = ()
            if self._client.info("cluster").get("cluster_enabled"):
                # Each range: first slot, last slot, primary (address, port, id), replicas.
                ranges = self._client.execute_command("CLUSTER SLOTS")
                primaries = [(str(r[2][0], "utf-8"), int(r[2][1])) for r in ranges]
                self._nodes = tuple(sorted(set(primaries)))
                self._owner = np.zeros(16384, np.int16)
                for (first, last, *_), primary in zip(ranges, primaries, strict=True):
                    self._owner[first : last + 1] = self._nodes.index(primary)
        return self._nodes

    def _primaries(self) -> list[Any]:
        """A client of each primary of a cluster, in the order of `_owner`; or the one client."""
        nodes = self._topology()
        if not self._clients:
            self._clients = [self._connect(_at(n)) for n in nodes] if nodes else [self._client]
        return self._clients

    def _of(self, key: str) -> Any:
        if not self._topology():
            return self._client
        slot = int(slots_of(b"", pa.array([key], pa.string()))[0])
        return self._primaries()[self._owner[slot]]


class RedisWriter:
    """Streams commands to each node, at most `_WINDOW` payloads ahead of their replies."""

    def __init__(
        self,
        prefix: str,
        pools: list[redis.ConnectionPool],
        owner: npt.NDArray[np.int16],
        *,
        batch: int,
        limit: "_Limit",
    ) -> None:
        self._prefix, self._pools, self._owner = prefix.encode(), pools, owner
        self._batch, self._limit = batch, limit
        self._at = _location(pools[0].connection_kwargs)
        self._connections: list[Any] = []
        self._pending: list[deque[int]] = [deque() for _ in pools]

    def write(
        self,
        ids: pa.Array,
        values: npt.NDArray[np.uint8],
        expire_at: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Set rows: MSET on a single server; SET per row with expiry or in a cluster."""
        with typed_errors(self._at):
            for start in range(0, len(ids), _ROWS_PER_SEND):
                rows = slice(start, start + _ROWS_PER_SEND)
                times = None if expire_at is None else expire_at[rows]
                self._write(ids[rows], values[rows], times)

    def remove(self, ids: pa.Array) -> None:
        """UNLINK: the server frees the memory in the background."""
        with typed_errors(self._at):
            for start in range(0, len(ids), _ROWS_PER_SEND):
                part = ids[start : start + _ROWS_PER_SEND]
                if len(self._owner) == 0:
                    self._send(0, resp.unlink(self._prefix, part, self._batch))
                for node, rows in self._split(part):
                    self._send(node, resp.unlink(self._prefix, part.take(pa.array(rows)), 1))

    def __enter__(self) -> Self:
        with typed_errors(self._at):
            self._connections = [p.get_connection() for p in self._pools]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                with typed_errors(self._at):
                    for node in range(len(self._connections)):
                        while self._pending[node]:
                            self._drain(node)
        finally:
            # A connection with replies still under way must never be used again.
            for connection in self._connections:
                connection.disconnect()
            for pool, connection in zip(self._pools, self._connections, strict=True):
                pool.release(connection)

    def _write(
        self,
        ids: pa.Array,
        values: npt.NDArray[np.uint8],
        expire_at: npt.NDArray[np.int64] | None,
    ) -> None:
        if len(self._owner) == 0 and expire_at is None:
            self._send(0, resp.mset(self._prefix, ids, values, self._batch))
        elif len(self._owner) == 0:
            self._send(0, resp.set_each(self._prefix, ids, values, expire_at))
        else:
            for node, rows in self._split(ids):
                times = None if expire_at is None else expire_at[rows]
                part = ids.take(pa.array(rows))
                self._send(node, resp.set_each(self._prefix, part, values[rows], times))

    def _split(self, ids: pa.Array) -> Iterator[tuple[int, npt.NDArray]]:
        """The rows of each node of a cluster; nothing for a single server."""
        if len(self._owner):
            owners = self._owner[slots_of(self._prefix, ids)]
            for node in np.unique(owners):
                yield int(node), np.flatnonzero(owners == node)

    def _send(self, node: int, payload: resp.Payload) -> None:
        self._limit.wait(payload.size)
        self._connections[node].send_packed_command(payload.chunks, check_health=False)
        self._pending[node].append(payload.replies)
        while len(self._pending[node]) >= _WINDOW:
            self._drain(node)

    def _drain(self, node: int) -> None:
        connection = self._connections[node]
        for _ in range(self._pending[node].popleft()):
            reply = connection.read_response(disable_decoding=True)
            if isinstance(reply, Exception):
                raise reply


class _Limit:
    """A bandwidth limit that several writers share, so that serving is not starved."""

    def __init__(self, bytes_per_s: int) -> None:
        self._rate, self._free_at, self._lock = bytes_per_s, time.monotonic(), threading.Lock()

    def wait(self, size: int) -> None:
        """Wait for this writer's turn to send `size` bytes."""
        if not self._rate:
            return
        with self._lock:
            start = max(self._free_at, time.monotonic())
            self._free_at = start + size / self._rate
        time.sleep(max(0.0, start - time.monotonic()))


def _parse_url(url: str) -> dict[str, Any]:
    parse: Any = redis.connection.parse_url
    try:
        return dict(parse(url))
    except ValueError as error:  # it names the option, and not its value
        raise InputError(
            "an option in the address of the online store is wrong",
            where="DERM_REDIS_URL",
            found=str(error),
        ) from None


def _scan(client: Any, prefix: str) -> Iterator[list[bytes]]:
    cursor = 0
    # The prefix is ours: letters, digits, colons; nothing that a glob pattern would read.
    while True:
        cursor, keys = client.scan(cursor, match=f"{prefix}*", count=_SCAN_COUNT)
        yield keys
        if cursor == 0:
            return


def _location(options: dict[str, Any]) -> str:
    if path := options.get("path"):
        return f"redis unix:{path}"
    return f"redis {options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _at(node: Node) -> dict[str, Any]:
    return {"host": node[0], "port": node[1]}
