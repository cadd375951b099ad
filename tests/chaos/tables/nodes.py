"""Who takes part: shards, publishers and rankers, around the same code that the processes run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from feature_store.contracts.errors import MissingInput, StoreError
from feature_store.tables.fetching import Fetch, FetchCounts, ServedVersion
from feature_store.tables.ledger import Intent, Pointer, flipped, next_intent
from feature_store.tables.publishing import Publication
from feature_store.tables.serving import ShardCore
from feature_store.tables.states import State
from feature_store.tables.wire import (
    Frame,
    FrameReader,
    Kind,
    VersionMissing,
    pack_json,
    parse_json,
)
from tests.chaos.tables.world import ASKED, SHARDS, World, judge

if TYPE_CHECKING:
    from tests.chaos.tables.simulation import Simulation

_RESEND_S, _DEADLINE_S = 0.02, 0.6
_TIMEOUT_S, _POLL_S, _FOLLOW_S = 0.008, 0.06, 0.1
_ATTEMPTS = 4
Reply = Callable[[Frame], None]


@dataclass
class MemoryLedger:
    """A ledger that keeps everything that was ever live, for the judge."""

    now: Pointer | None = None
    begun: Intent | None = None
    history: list[Pointer] = field(default_factory=list)

    def pointer(self) -> Pointer | None:
        return self.now

    def intent(self) -> Intent | None:
        return self.begun

    def begin(self, version: str) -> Intent:
        self.begun = next_intent(self.now, self.begun, version)
        return self.begun

    def flip(self, intent: Intent) -> Pointer:
        self.now = flipped(self.now, self.begun, intent)
        self.history.append(self.now)
        return self.now


class ShardNode:
    """A shard process: it can be killed, come back, and find less on its disk than before."""

    core_class = ShardCore

    def __init__(self, simulation: Simulation, world: World, shard: int) -> None:
        self.simulation, self.world, self.shard = simulation, world, shard
        self.boot = 0
        self.core: ShardCore | None = None
        self.overloaded = False
        # Versions whose files are damaged here, or have not come yet.
        self.damaged: set[str] = set()
        self.absent: set[str] = set()
        self.kill_in: State | None = None
        self.start(stale=False)

    def start(self, *, stale: bool) -> None:
        """Begin as a new process; a stale disk still names what was live before."""
        self.boot += 1
        self.core = self.core_class(self.shard, SHARDS, boot=str(self.boot))
        ledger = self.simulation.ledger
        pointer, intent = ledger.pointer(), ledger.intent()
        if stale and len(ledger.history) > 1:
            self.absent.add(ledger.history[-1].version)
            pointer, intent = ledger.history[-2], None
            self.simulation.seen["shard restarted with only v-1"] += 1
        self.core.begin(pointer, intent)
        self._work()
        self._follow(self.boot)

    def kill(self) -> None:
        """SIGKILL: whatever it was doing is lost."""
        self.core = None

    def receive(self, data: bytes, reply: Reply) -> None:
        """A message arrives."""
        if self.core is None:
            return
        for frame in FrameReader().feed(data):
            answer = self.core.handle(frame, overloaded=self.overloaded)
            self._work()
            if self.core is None:
                return  # killed in the state it has just come to
            self.simulation.network.send(partial(_deliver, answer.pack(), reply))

    def _work(self) -> None:
        """Read what the core wants, which takes time; be killed where the schedule says so."""
        if self.core is None:
            return
        for version in self.core.take_wanted():
            boot, rng = self.boot, self.simulation.rng
            delay = rng.uniform(0.001, 0.03)
            self.simulation.network.after(delay, lambda v=version, b=boot: self._read(v, b))
        if self.kill_in in {h.state for h in self.core.held.values()}:
            self.simulation.seen[f"killed in {self.kill_in.name}"] += 1
            self.kill_in = None
            self.simulation.kill(self)

    def _read(self, version: str, boot: int) -> None:
        if self.core is None or boot != self.boot:
            return
        if version in self.absent:
            self.core.failed(version, MissingInput(f"there is no version {version}"))
        elif version in self.damaged:
            self.simulation.seen["damaged file at load"] += 1
            self.core.failed(version, self.world.damaged(version, self.shard))
        else:
            revision = self.simulation.revision
            self.core.loaded(self.world.data[version, self.shard, revision])
        self._work()

    def _follow(self, boot: int) -> None:
        """Look into the ledger now and then, as the process does."""
        if self.core is None or boot != self.boot:
            return
        pointer = self.simulation.ledger.pointer()
        if pointer and pointer.version not in self.absent:
            self.core.heard(pointer)
        for version in self.core.held:
            self.core.revised(version, self.simulation.revision)
        self._work()
        self.simulation.network.after(_FOLLOW_S, lambda: self._follow(boot))


def _deliver(data: bytes, reply: Reply) -> None:
    for frame in FrameReader().feed(data):
        reply(frame)


class PublisherNode:
    """`derm tables publish` or `rollback`, as one process that may die anywhere."""

    def __init__(self, simulation: Simulation, version: str) -> None:
        self.simulation, self.alive = simulation, True
        self.intent = simulation.ledger.begin(version)
        self.publication = Publication(self.intent, SHARDS)
        self.deadline = simulation.network.now + _DEADLINE_S
        self.die_before_flip = self.die_after_flip = False
        self._flipping = False
        self._tick()

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return not self.alive or self.publication.phase in ("done", "failed")

    def _tick(self) -> None:
        if not self.alive or self.publication.phase == "done":
            return
        if self.simulation.network.now > self.deadline:
            self.publication.give_up("some shards did not answer in time", -1)
            if self.publication.phase == "failed" or self.simulation.network.now > 4:
                self.alive = False
        for shard, told in self.publication.messages().items():
            frame = Frame(Kind.CONTROL, shard, 0, pack_json(told))
            self.simulation.send(frame, lambda f, s=shard: self._answered(s, f))
        self.simulation.network.after(_RESEND_S, self._tick)

    def _answered(self, shard: int, frame: Frame) -> None:
        if not self.alive or frame.kind is not Kind.ANSWER:
            return
        self.publication.answered(shard, parse_json(frame.body))
        if self.publication.phase == "ready" and not self._flipping:
            self._flipping = True
            self.simulation.network.after(self.simulation.rng.uniform(0, 0.02), self._flip)

    def _flip(self) -> None:
        if self.publication.phase != "ready":
            return
        if self.die_before_flip:
            self.simulation.seen["publisher dead between ready and flip"] += 1
            self.alive = False
            return
        try:
            pointer = self.publication.flip(self.simulation.ledger)
        except StoreError:
            self.simulation.seen["publisher overtaken"] += 1
            return
        self.simulation.acked.append(pointer)
        if self.die_after_flip:
            self.simulation.seen["publisher dead after flip"] += 1
            self.alive = False


class RankerNode:
    """A ranker: dense weights and the version of the tables they belong to, always as a pair."""

    fetch_class = Fetch

    def __init__(self, simulation: Simulation, *, every_s: float, pinned: bool = False) -> None:
        self.simulation, self.every_s, self.pinned = simulation, every_s, pinned
        self.pair: tuple[ServedVersion, str] | None = None
        self.counts, self.numbers = FetchCounts(), 0
        self.responses: Counter[str] = Counter()
        self._heard: Pointer | None = None
        simulation.network.after(0.001, self._poll)
        simulation.network.after(simulation.rng.uniform(0.005, 0.02), self._request)

    def _ask(self, told: dict[str, Any], got: Reply) -> None:
        for shard in range(SHARDS):
            frame = Frame(Kind.CONTROL, shard, 0, pack_json(told))
            self.simulation.send(frame, got)

    def _poll(self) -> None:
        if not (self.pinned and self.pair):
            self._ask({"do": "status"}, self._status)
        self.simulation.network.after(_POLL_S, self._poll)

    def _status(self, frame: Frame) -> None:
        if frame.kind is not Kind.ANSWER:
            return
        raw = parse_json(frame.body)["pointer"]
        pointer = Pointer.model_validate(raw) if raw else None
        if pointer is None or (self._heard and pointer.epoch < self._heard.epoch):
            return
        self._heard = pointer
        if (self.pair is None or self.pair[1] != pointer.version) and not (
            self.pinned and self.pair
        ):
            self._ask({"do": "describe", "version": pointer.version}, self._described)

    def _described(self, frame: Frame) -> None:
        if frame.kind is not Kind.ANSWER:
            return
        served = ServedVersion.parse(parse_json(frame.body))
        # The weights are read from the same version, which takes time; then both change at once.
        delay = self.simulation.rng.uniform(0.001, 0.02)
        self.simulation.network.after(delay, lambda: self._adopt(served, served.version))

    def _adopt(self, served: ServedVersion, dense: str) -> None:
        stays = self.pinned and self.pair
        if self._heard and self._heard.version == served.version and not stays:
            self.pair = (served, dense)

    def _request(self) -> None:
        self.simulation.network.after(self.every_s, self._request)
        self._try(_ATTEMPTS)

    def _try(self, attempts: int) -> None:
        if self.pair is None:
            return
        served, dense = self.pair
        forgotten = self.simulation.forgotten_everywhere
        rng = self.simulation.rng
        ids = {
            "users": ASKED[[rng.randrange(len(ASKED)) for _ in range(5)]],
            "pins": ASKED[[rng.randrange(len(ASKED)) for _ in range(7)]],
        }
        self.numbers += 100
        fetch = self.fetch_class(served, ids, self.numbers, self.counts)

        def finish() -> None:
            fetch.lose()
            try:
                fetched = fetch.result()
            except VersionMissing:
                self.responses["version missing"] += 1
                if attempts > 1 and not self.pinned:
                    self._ask({"do": "status"}, self._status)
                    self.simulation.network.after(0.01, lambda: self._try(attempts - 1))
                return
            judge(dense, fetched, ids, forgotten=forgotten)
            self.responses[served.version] += 1
            self.responses["with defaults"] += bool(fetched.defaulted)

        for frame in fetch.frames:
            self.simulation.send(frame, fetch.receive)
        self.simulation.network.after(_TIMEOUT_S, finish)
