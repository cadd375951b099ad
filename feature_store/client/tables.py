"""What a ranker imports to read id tables: rows of one version, while it does other work.

Needs numpy and the contracts; no torch. A client belongs to one thread; make one for each.
Shapes: N ids of a request, D values of a row.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from feature_store.contracts.errors import InputError, StoreError
from feature_store.tables.address import Address
from feature_store.tables.fetching import Fetch, FetchCounts, Fetched, ServedVersion
from feature_store.tables.wire import (
    BrokenFrame,
    Frame,
    FrameReader,
    Kind,
    RefusalBody,
    pack_json,
    parse_json,
)

_RECEIVE = 1 << 18
# A shard that refused a connection is asked again after so long.
_RETRY_S = 0.2
_CONTROL_S = 5.0


class _Link:
    """The connection to one shard, made when it is needed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._reader, self._retry_at = FrameReader(), 0.0

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send bytes.

        Raises:
            OSError: the shard cannot be reached.
        """
        if self._socket is None:
            if time.monotonic() < self._retry_at:
                raise ConnectionError(f"{self.address} refused a moment ago")
            self._retry_at = time.monotonic() + _RETRY_S
            self._socket, self._reader = self.address.connect(timeout_s), FrameReader()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(data)
        except OSError:
            self.close()
            raise

    def receive(self, timeout_s: float) -> list[Frame]:
        """The frames that have come, after waiting for the first; none when none came in time.

        Raises:
            OSError, BrokenFrame: the connection is lost.
        """
        if self._socket is None:
            raise ConnectionError(f"{self.address} is not connected")
        try:
            self._socket.settimeout(max(timeout_s, 0.0))
            data = self._socket.recv(_RECEIVE)
            if not data:
                raise ConnectionError(f"{self.address} has closed the connection")
            return list(self._reader.feed(data))
        except (TimeoutError, BlockingIOError):
            return []
        except (OSError, BrokenFrame):
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Pending:
    """A request whose rows are on their way; `join` waits for what is left of them."""

    def __init__(self, client: "TableClient", fetch: Fetch, deadline: float) -> None:
        self._client, self._fetch, self._deadline = client, fetch, deadline

    def join(self) -> Fetched:
        """The rows; default rows for those that did not come in time.

        Raises:
            VersionMissing: a shard does not hold the version.
            StoreError: a shard refused, or answered with rows of something else.
        """
        return self._client.finish(self._fetch, self._deadline)


class TableClient:
    """Reads rows from the shards of the id tables.

    Args:
        addresses: of the shards in order, `unix:///a/path` or `tcp://host:port`.
        timeout_s: of a request, from `start` to the end of `join`; rows that take longer are
            default rows, and counted.
        token: for those who publish.
    """

    def __init__(
        self, addresses: Sequence[str | Address], *, timeout_s: float = 0.05, token: str = ""
    ) -> None:
        parsed = [a if isinstance(a, Address) else Address.parse(a) for a in addresses]
        self.timeout_s, self._token = timeout_s, token
        self.counts = FetchCounts()
        self._links = [_Link(address) for address in parsed]
        self._fetches: dict[int, Fetch] = {}
        self._answers: dict[int, Frame] = {}
        self._asked: set[int] = set()
        self._next = 1

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._links)

    def start(self, served: ServedVersion, ids: Mapping[str, npt.NDArray]) -> Pending:
        """Ask for rows, and return at once.

        Args:
            served: the version, as `describe` tells.
            ids: by table, int64 [N]; repeated ids travel once.

        Raises:
            InputError: the version has no such table, or is of another number of shards.
        """
        if served.shards != self.shards:
            raise InputError(
                "a version is of another number of shards than this client",
                expected=f"{served.shards} addresses",
                found=str(self.shards),
            )
        deadline = time.monotonic() + self.timeout_s
        fetch = Fetch(served, ids, self._next, self.counts)
        self._next = (self._next + len(fetch.frames)) % 2**32
        for number in fetch.waiting:
            self._fetches[number] = fetch
        frames: dict[int, list[bytes]] = {}
        for frame in fetch.frames:
            frames.setdefault(frame.shard, []).append(frame.pack())
        for shard, packed in frames.items():
            try:
                self._links[shard].send(b"".join(packed), self.timeout_s)
            except OSError:
                self.counts.lost += fetch.lose(shard)
        return Pending(self, fetch, deadline)

    def fetch(self, served: ServedVersion, ids: Mapping[str, npt.NDArray]) -> Fetched:
        """Rows, at once: `start` and `join`."""
        return self.start(served, ids).join()

    def finish(self, fetch: Fetch, deadline: float) -> Fetched:
        """What `Pending.join` does."""
        numbers = list(fetch.waiting)
        while not fetch.done:
            shard = next(iter(fetch.waiting.values())).shard
            left = deadline - time.monotonic()
            if not self._pump(shard, max(left, 0.0)) and left <= 0:
                # What the others have sent meanwhile is there already.
                self.counts.timeouts += fetch.lose(shard)
        for number in numbers:
            self._fetches.pop(number, None)
        return fetch.result()

    def control(self, shard: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """Tell or ask one shard something; its answer.

        Raises:
            StoreError: it cannot be reached, or refuses.
        """
        number, self._next = self._next, (self._next + 1) % 2**32
        told = {**told, "token": self._token} if self._token else told
        frame = Frame(Kind.CONTROL, shard, number, pack_json(told))
        where, deadline = f"shard {shard} at {self._links[shard].address}", _CONTROL_S
        end = time.monotonic() + deadline
        self._asked.add(number)
        try:
            self._links[shard].send(frame.pack(), deadline)
            while number not in self._answers and (left := end - time.monotonic()) > 0:
                self._take(self._links[shard].receive(left))
        except (OSError, BrokenFrame) as error:
            raise StoreError(
                "a shard cannot be reached",
                where=where,
                found=f"{type(error).__name__}: {error}",
                hint="start it: derm tables serve",
            ) from error
        finally:
            self._asked.discard(number)
        answer = self._answers.pop(number, None)
        if answer is None:
            raise StoreError("a shard does not answer", where=where, found=f"{deadline} s")
        if answer.kind is Kind.ERROR:
            raise RefusalBody.parse(answer.body).as_error(where)
        return parse_json(answer.body)

    def statuses(self) -> list[dict[str, Any] | StoreError]:
        """What each shard holds and has heard, or why it does not say."""
        found: list[dict[str, Any] | StoreError] = []
        for shard in range(self.shards):
            try:
                found.append(self.control(shard, {"do": "status"}))
            except StoreError as error:
                found.append(error)
        return found

    def live(self) -> str:
        """The version that is live, as the shard knows that has heard the newest.

        Raises:
            StoreError: no shard answers, or nothing was published.
        """
        statuses = self.statuses()
        pointers = [s["pointer"] for s in statuses if isinstance(s, dict) and s["pointer"]]
        if not pointers:
            said = next((str(s) for s in statuses if isinstance(s, StoreError)), "nothing")
            raise StoreError(
                "no shard says which version is live",
                found=said,
                hint="derm tables publish VERSION",
            )
        newest: dict[str, Any] = max(pointers, key=lambda p: int(p["epoch"]))
        return str(newest["version"])

    def describe(self, version: str) -> ServedVersion:
        """A version as its shards serve it.

        Raises:
            StoreError: no shard holds it.
        """
        problem: StoreError | None = None
        for shard in range(self.shards):
            try:
                return ServedVersion.parse(
                    self.control(shard, {"do": "describe", "version": version})
                )
            except StoreError as error:
                problem = error
        raise problem or StoreError("there are no shards", hint="give their addresses")

    def close(self) -> None:
        """Close the connections."""
        for link in self._links:
            link.close()

    def _pump(self, shard: int, timeout_s: float) -> bool:
        """Take in what a shard has sent; whether anything came."""
        try:
            frames = self._links[shard].receive(timeout_s)
        except (OSError, BrokenFrame):
            # What was asked of it will never come.
            for fetch in {id(f): f for f in self._fetches.values()}.values():
                self.counts.lost += fetch.lose(shard)
            return True
        self._take(frames)
        return bool(frames)

    def _take(self, frames: list[Frame]) -> None:
        for frame in frames:
            fetch = self._fetches.pop(frame.request, None)
            if fetch is not None:
                fetch.receive(frame)
            elif frame.request in self._asked:
                self._answers[frame.request] = frame
