"""What a shard does with what it is told and asked: no socket, no clock, no thread.

Whoever runs it hands it frames, sends its answers, and reads the versions that it wants; a process
(feature_store/tables/server.py) and the simulation of faults run the same code.

Messages may be late, twice, or out of order. Those of a publication carry its epoch: what is older
than what a shard has heard is answered, and changes nothing.
"""

import hmac
from dataclasses import asdict, dataclass, field
from typing import Any

from feature_store.contracts.errors import DermError
from feature_store.tables.ledger import Intent, Pointer
from feature_store.tables.shard import ShardVersion
from feature_store.tables.states import SERVED, State, follows
from feature_store.tables.wire import (
    BrokenFrame,
    Code,
    Frame,
    Kind,
    LookupBody,
    RefusalBody,
    RowsBody,
    pack_json,
    parse_json,
)

# A request of more ids is many requests.
MAX_IDS = 1 << 16
_CHANGES = ("load", "live", "drop")
# Versions that are no longer held, and why, for whoever looks.
_GONE_KEPT = 8


@dataclass(slots=True)
class HeldVersion:
    """A version on this shard.

    Attributes:
        epoch: of the publication that asked for it last.
        reading: its files are being read, for the first time or for a newer revision.
        data: None while it is read, and when it is gone.
        error: why it could not be read.
    """

    epoch: int
    state: State = State.LOADING
    data: ShardVersion | None = None
    error: str = ""
    reading: bool = True

    @property
    def revision(self) -> int:
        """That of the files which are served; -1 when none is."""
        return self.data.manifest.revision if self.data else -1

    def move(self, then: State) -> None:
        """Go to another state; one that does not follow is not gone to."""
        if follows(self.state, then):
            self.state = then
            if then is State.GONE:
                self.data = None


@dataclass(slots=True)
class ShardCounts:
    """What a shard has done since it began."""

    requests: int = 0
    rows: int = 0
    unknown: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class ShardCore:
    """One shard.

    Args:
        shard: its number.
        shards: how many there are.
        boot: differs each time a process begins.
        token: what changes must carry; empty: nothing (whoever reaches it may change it).
    """

    def __init__(self, shard: int, shards: int, *, boot: str, token: str = "") -> None:
        self.shard, self.shards, self.boot = shard, shards, boot
        self._token = token
        self.epoch = 0
        self.pointer: Pointer | None = None
        self.held: dict[str, HeldVersion] = {}
        self.counts = ShardCounts()
        self._wanted: list[str] = []

    def begin(self, pointer: Pointer | None, intent: Intent | None) -> None:
        """Take up where the ledger stands: what is live, what was, and what is being published."""
        if pointer:
            self.epoch, self.pointer = pointer.epoch, pointer
            for version in filter(None, (pointer.version, pointer.previous)):
                self._want(version, pointer.epoch)
        if intent and intent.epoch > self.epoch:
            self.epoch = intent.epoch
            self._want(intent.version, intent.epoch)

    def heard(self, pointer: Pointer | None) -> None:
        """Take in what the ledger says is live; a publisher may have died before it could tell."""
        if pointer and (self.pointer is None or pointer.epoch > self.pointer.epoch):
            self._go_live(pointer)

    def revised(self, version: str, revision: int) -> None:
        """Take in that ids were forgotten in a version: its files are read anew."""
        held = self.held.get(version)
        if held and held.data and not held.reading and held.revision < revision:
            held.reading = True
            self._wanted.append(version)

    def take_wanted(self) -> list[str]:
        """The versions to read now; each is answered by `loaded` or `failed`."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def loaded(self, data: ShardVersion) -> None:
        """A version was read, and every byte of it is right."""
        held = self.held.get(data.version)
        if held is None or held.state is State.GONE:
            return  # dropped meanwhile
        held.data, held.error, held.reading = data, "", False
        held.move(State.READY)
        self._settle()

    def failed(self, version: str, error: DermError) -> None:
        """A version could not be read; what is served already stays."""
        held = self.held.get(version)
        if held is not None:
            held.error, held.reading = str(error), False
            if held.state is State.LOADING:
                held.move(State.GONE)

    def handle(self, frame: Frame, *, overloaded: bool = False) -> Frame:
        """The answer to a request.

        Args:
            overloaded: more waits than can be answered in time: look-ups are refused.
        """
        try:
            if frame.shard != self.shard:
                return self._refuse(frame, Code.WRONG_SHARD, f"this is shard {self.shard}")
            if frame.kind is Kind.LOOKUP:
                if overloaded:
                    return self._refuse(frame, Code.OVERLOAD, "too many requests wait")
                return self._look_up(frame)
            if frame.kind is Kind.CONTROL:
                return self._control(frame)
        except BrokenFrame as error:
            return self._refuse(frame, Code.MALFORMED, error.found)
        return self._refuse(frame, Code.MALFORMED, f"{frame.kind.name} is no request")

    def status(self) -> dict[str, Any]:
        """What this shard holds, has heard and has done."""
        return {
            "shard": self.shard,
            "shards": self.shards,
            "boot": self.boot,
            "epoch": self.epoch,
            "pointer": self.pointer.model_dump() if self.pointer else None,
            "versions": {
                version: {"state": h.state.value, "revision": h.revision, "error": h.error}
                for version, h in self.held.items()
            },
            "counts": asdict(self.counts),
        }

    def _look_up(self, frame: Frame) -> Frame:
        asked = LookupBody.parse(frame.body)
        held = self.held.get(asked.version)
        if held is None or held.state not in SERVED or held.data is None:
            state = held.state.value if held else "never heard of"
            return self._refuse(frame, Code.VERSION_MISSING, f"{asked.version} is {state}")
        table = held.data.tables.get(asked.table)
        if table is None:
            known = " ".join(held.data.tables)
            return self._refuse(frame, Code.TABLE_MISSING, f"{asked.version} has {known}")
        if len(asked.ids) > MAX_IDS:
            return self._refuse(frame, Code.OVERLOAD, f"{len(asked.ids)} ids, at most {MAX_IDS}")
        packed, known_n = table.find(asked.ids)
        self.counts.requests += 1
        self.counts.rows += len(packed)
        self.counts.unknown += len(packed) - int(known_n.sum())
        # The version is that of the rows, never the one that was asked for.
        rows = RowsBody(held.data.version, table.name, table.form, packed, known_n)
        return Frame(Kind.ROWS, self.shard, frame.request, rows.pack())

    def _control(self, frame: Frame) -> Frame:
        told = parse_json(frame.body)
        do = told.get("do")
        if do in _CHANGES:
            # Python's own comparison would tell how much of a guess was right.
            if not hmac.compare_digest(str(told.get("token", "")).encode(), self._token.encode()):
                return self._refuse(frame, Code.FORBIDDEN, "a change needs the right token")
            problem = self._change(do, told)
            if problem:
                return self._refuse(frame, Code.MALFORMED, problem)
        elif do == "describe":
            return self._describe(frame, str(told.get("version")))
        elif do != "status":
            return self._refuse(frame, Code.MALFORMED, f"nobody can {do!r}")
        return Frame(Kind.ANSWER, self.shard, frame.request, pack_json(self.status()))

    def _change(self, do: str, told: dict[str, Any]) -> str:
        """Do what a publication says; what is wrong with it, or nothing."""
        try:
            epoch, version = int(told["epoch"]), str(told["version"])
            pointer = Pointer(epoch=epoch, version=version, previous=told.get("previous"))
        except (KeyError, ValueError, TypeError) as error:
            return f"{do}: {error}"
        if do == "live":
            self._go_live(pointer)
        elif epoch >= self.epoch:
            self.epoch = epoch
            if do == "load":
                self._want(version, epoch)
            elif version not in self._named():
                held = self.held.get(version)
                if held and held.epoch <= epoch:
                    held.move(State.GONE)
        return ""

    def _go_live(self, pointer: Pointer) -> None:
        """Follow the ledger; whichever publication begins meanwhile does not hinder that."""
        if self.pointer is None or pointer.epoch > self.pointer.epoch:
            self.pointer = pointer
            self.epoch = max(self.epoch, pointer.epoch)
        if self.pointer.epoch == pointer.epoch:
            self._want(pointer.version, pointer.epoch)
            self._settle()

    def _want(self, version: str, epoch: int) -> None:
        """Read a version, unless it is held or being read."""
        held = self.held.get(version)
        # What could not be read is read again for a new publication, not for a repeated message.
        tried = held is not None and bool(held.error) and epoch <= held.epoch
        if held is None or (held.state is State.GONE and not tried):
            self.held[version] = HeldVersion(epoch)
            self._wanted.append(version)
            return
        held.epoch = max(held.epoch, epoch)

    def _settle(self) -> None:
        """Bring what is held to the states that the pointer says."""
        if self.pointer is None:
            return
        for version, held in self.held.items():
            if version == self.pointer.version:
                held.move(State.LIVE)
            elif version == self.pointer.previous:
                held.move(State.DRAINING)
            elif held.epoch <= self.pointer.epoch:
                held.move(State.DRAINING)
                held.move(State.GONE)
        gone = [v for v, h in self.held.items() if h.state is State.GONE]
        for version in gone[:-_GONE_KEPT]:
            del self.held[version]

    def _named(self) -> tuple[str | None, ...]:
        return (self.pointer.version, self.pointer.previous) if self.pointer else ()

    def _describe(self, frame: Frame, version: str) -> Frame:
        held = self.held.get(version)
        if held is None or held.state not in SERVED or held.data is None:
            return self._refuse(frame, Code.VERSION_MISSING, version)
        answer = {
            "version": held.data.version,
            "shards": self.shards,
            "revision": held.revision,
            "tables": [
                {
                    "name": t.name,
                    "bits": t.form.bits,
                    "dim": t.form.dim,
                    "default": t.default.hex(),
                }
                for t in held.data.tables.values()
            ],
        }
        return Frame(Kind.ANSWER, self.shard, frame.request, pack_json(answer))

    def _refuse(self, frame: Frame, code: Code, what: str) -> Frame:
        self.counts.refused[code.name] = self.counts.refused.get(code.name, 0) + 1
        return Frame(Kind.ERROR, self.shard, frame.request, RefusalBody(code, what).pack())
