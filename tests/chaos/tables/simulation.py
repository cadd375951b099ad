"""One schedule: faults that a seed chooses, then calm, then the judgement."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from feature_store.tables.ledger import Pointer
from feature_store.tables.states import State
from feature_store.tables.wire import Frame
from tests.chaos.tables.network import Network, Weather
from tests.chaos.tables.nodes import MemoryLedger, PublisherNode, RankerNode, Reply, ShardNode
from tests.chaos.tables.world import NUMBERS, SHARDS, Broken, World

STORM_S, CALM_S = 0.5, 0.8
KILLED = tuple(s for s in State if s is not State.GONE)
# Each schedule is certain to have the fault that its seed names, and others by chance.
FAULTS = (
    *(f"killed in {state.name}" for state in KILLED),
    "acks late",
    "acks twice",
    "messages lost",
    "publisher dead between ready and flip",
    "publisher dead after flip",
    "publisher overtaken",
    "shard restarted with only v-1",
    "rollback under load",
    "client pinned to an unloaded version",
    "damaged file at load",
    "shard overloaded",
    "forgotten while served",
)
_CHANCE = 0.25


class Simulation:
    """Shards, publishers and rankers through one schedule.

    Args:
        seed: decides everything.
        shard_class, ranker_class: others than the real ones break promises, on purpose.
    """

    def __init__(
        self,
        world: World,
        seed: int,
        *,
        shard_class: type[ShardNode] = ShardNode,
        ranker_class: type[RankerNode] = RankerNode,
    ) -> None:
        self.rng, self.seed = random.Random(seed), seed
        chosen = FAULTS[seed % len(FAULTS)]
        self.faults = {f for f in FAULTS if f == chosen or self.rng.random() < _CHANCE}
        self.network = Network(self.rng, Weather())
        self.ledger, self.acked = MemoryLedger(), list[Pointer]()
        self.seen: Counter[str] = Counter()
        self.revision, self.forgotten_everywhere = 0, False
        self.publishers: list[PublisherNode] = []
        self.shards = [shard_class(self, world, shard) for shard in range(SHARDS)]
        self.rankers = [ranker_class(self, every_s=0.023), ranker_class(self, every_s=0.037)]

    def send(self, frame: Frame, reply: Reply) -> None:
        """Send a frame to its shard."""
        node, data = self.shards[frame.shard], frame.pack()
        self.network.send(lambda: node.receive(data, reply))

    def kill(self, node: ShardNode) -> None:
        """Kill a shard; somebody starts it again, perhaps with an old disk."""
        node.kill()
        stale = "shard restarted with only v-1" in self.faults
        self.network.after(self.rng.uniform(0.01, 0.1), partial(self._restart, node, stale))

    def publish(self, version: str) -> PublisherNode:
        """Begin a publication."""
        publisher = PublisherNode(self, version)
        self.publishers.append(publisher)
        return publisher

    def play(self) -> Counter[str]:
        """Play the schedule; what was met.

        Raises:
            Broken: a response was mixed, or a publication that was reported is lost.
        """
        self.publish("v1")
        self.network.run(0.15)
        if self.ledger.now is None:
            raise Broken("the first version did not become live in fair weather")
        self._storm()
        self.network.run(self.network.now + STORM_S)
        self._calm()
        self._judge()
        for name in ("delayed", "dropped", "repeated", "delivered"):
            self.seen[f"messages {name}"] += getattr(self.network, name)
        for ranker in self.rankers:
            self.seen["responses"] += sum(n for v, n in ranker.responses.items() if v in NUMBERS)
            self.seen["responses with defaults"] += ranker.responses["with defaults"]
            self.seen["version missing"] += ranker.responses["version missing"]
        self.seen["publications"] += len(self.publishers)
        self.seen["publications live"] += len(self.ledger.history)
        return self.seen

    def _storm(self) -> None:
        rng, faults, later = self.rng, self.faults, self.network.after
        self.network.weather = Weather(
            slow=0.2 if "acks late" in faults else 0.0,
            twice=0.3 if "acks twice" in faults else 0.0,
            lost=0.1 if "messages lost" in faults else 0.0,
        )
        if "client pinned to an unloaded version" in faults:
            self.rankers.append(type(self.rankers[0])(self, every_s=0.029, pinned=True))
        for state in KILLED:
            if f"killed in {state.name}" in faults:
                node = rng.choice(self.shards)
                later(rng.uniform(0, STORM_S / 2), partial(setattr, node, "kill_in", state))
        if "shard restarted with only v-1" in faults:
            later(rng.uniform(STORM_S / 2, STORM_S), partial(self.kill, rng.choice(self.shards)))
        if "damaged file at load" in faults:
            rng.choice(self.shards).damaged.add(rng.choice(("v2", "v3")))
        if "shard overloaded" in faults:
            later(rng.uniform(0, STORM_S / 2), partial(self._overload, rng.choice(self.shards)))
        if "forgotten while served" in faults:
            later(rng.uniform(0, STORM_S), self._forget)
        at = 0.0
        for version in ("v2", "v3", "v4"):
            later(at, partial(self._publish_in_storm, version))
            at += rng.uniform(0.05, 0.25)
        if "rollback under load" in faults:
            later(rng.uniform(0.1, STORM_S), self._roll_back)

    def _publish_in_storm(self, version: str) -> None:
        publisher = self.publish(version)
        if version != "v4" or "publisher overtaken" not in self.faults:
            publisher.die_before_flip = self._dies("publisher dead between ready and flip")
            publisher.die_after_flip = self._dies("publisher dead after flip")
        if "publisher overtaken" in self.faults:
            self.network.after(self.rng.uniform(0, 0.05), lambda: self.publish("v5"))

    def _dies(self, fault: str) -> bool:
        return fault in self.faults and self.rng.random() < 0.6

    def _restart(self, node: ShardNode, stale: bool) -> None:
        if node.core is None:
            node.start(stale=stale)

    def _overload(self, node: ShardNode) -> None:
        node.overloaded = True
        self.seen["shard overloaded"] += 1
        self.network.after(0.05, partial(setattr, node, "overloaded", False))

    def _roll_back(self) -> None:
        now = self.ledger.now
        if now and now.previous:
            self.seen["rollback under load"] += 1
            self.publish(now.previous)

    def _forget(self) -> None:
        """Rows are gone from the files; shards see the new revision when they look."""
        self.revision = 1
        self.seen["forgotten while served"] += 1

    def _calm(self) -> None:
        """The weather clears, disks are repaired, and whoever looked at the status acts on it."""
        self.network.weather = Weather()
        for node in self.shards:
            node.damaged.clear()
            node.absent.clear()
            node.kill_in = None
            self._restart(node, False)
        for ranker in self.rankers:
            ranker.every_s = 0.1
        self.network.run(self.network.now + CALM_S)
        again = self.publish(live.version) if (live := self.ledger.now) else None
        self.network.run(self.network.now + CALM_S / 2)
        if again is None or again.publication.phase != "done":
            raise Broken("a publication in calm weather did not end")
        data = [h.data for n in self.shards if n.core for h in n.core.held.values() if h.data]
        if any(d.manifest.revision != self.revision for d in data):
            raise Broken("a shard still holds rows that were forgotten")
        self.forgotten_everywhere = self.revision == 1
        for ranker in self.rankers:
            ranker.every_s = 0.03
        self.network.run(self.network.now + 0.15)

    def _judge(self) -> None:
        live, history = self.ledger.now, self.ledger.history
        if [p for p in self.acked if p not in history]:
            raise Broken("a publication that was reported is lost")
        if [p.epoch for p in history] != sorted({p.epoch for p in history}):
            raise Broken("an older publication became live after a newer one")
        failed = {p.intent.epoch for p in self.publishers if p.publication.phase == "failed"}
        if failed & {p.epoch for p in history}:
            raise Broken("a publication that was reported as failed is live")
        for node in self.shards:
            held = node.core.held.get(live.version) if node.core and live else None
            if held is None or held.state is not State.LIVE:
                raise Broken(f"shard {node.shard} does not serve what is live")
            if len([h for h in node.core.held.values() if h.data]) > 3:
                raise Broken(f"shard {node.shard} keeps versions that nobody may ask for")
        for ranker in self.rankers:
            if ranker.pinned:
                if ranker.responses["version missing"]:
                    self.seen["client pinned to an unloaded version"] += 1
            elif ranker.pair is None or live is None or ranker.pair[1] != live.version:
                raise Broken("a ranker does not follow what is live")


Play = Callable[[World, int], Counter[str]]


def play(world: World, seed: int) -> Counter[str]:
    """One schedule.

    Raises:
        Broken: with the seed that shows it.
    """
    simulation = Simulation(world, seed)
    try:
        return simulation.play()
    except Broken as broken:
        raise Broken(f"seed {seed}, {sorted(simulation.faults)}: {broken}") from broken
