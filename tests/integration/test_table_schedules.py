"""Seeded faults against the serving of id tables, and that the judge would see a broken promise."""

from collections import Counter
from dataclasses import replace

import pytest

from feature_store.tables.fetching import Fetch, ServedVersion
from feature_store.tables.ledger import Intent, Pointer, flipped
from feature_store.tables.serving import ShardCore
from feature_store.tables.wire import Frame, Kind, LookupBody, RowsBody
from tests.chaos.tables import nodes
from tests.chaos.tables.nodes import RankerNode, ShardNode
from tests.chaos.tables.processes import play_processes
from tests.chaos.tables.simulation import FAULTS, Simulation, play
from tests.chaos.tables.world import Broken, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_no_schedule_mixes_versions_or_loses_a_publication(world: World) -> None:
    """Two seeds for each fault; thousands: python -m tests.chaos.tables."""
    met = Counter[str]()
    for seed in range(2 * len(FAULTS)):
        met += play(world, seed)
    happened = {"acks late": "messages delayed", "acks twice": "messages repeated"}
    happened["messages lost"] = "messages dropped"
    assert [fault for fault in FAULTS if not met[happened.get(fault, fault)]] == []
    assert met["responses"] > 500


def test_a_schedule_on_real_processes() -> None:
    """With the faults that its seed chooses; more: --processes 50."""
    met = play_processes(1, first=3)
    assert met["responses"] > 100


def test_a_seed_plays_again_exactly(world: World) -> None:
    assert play(world, 11) == play(world, 11)


class _ObligingCore(ShardCore):
    """Serves what is live, whatever it was asked for, and says it is what was asked for."""

    def _look_up(self, frame: Frame) -> Frame:
        asked = LookupBody.parse(frame.body)
        live = self.pointer.version if self.pointer else asked.version
        body = LookupBody(live, asked.table, asked.ids).pack()
        answer = super()._look_up(replace(frame, body=body))
        if answer.kind is not Kind.ROWS:
            return answer
        return replace(
            answer, body=replace(RowsBody.parse(answer.body), version=asked.version).pack()
        )


class _ObligingShard(ShardNode):
    core_class = _ObligingCore


class _TwoStepRanker(RankerNode):
    """Changes its tables first and its weights a moment later."""

    def _adopt(self, served: ServedVersion, dense: str) -> None:
        before = self.pair
        super()._adopt(served, dense)
        if before and self.pair and self.pair[1] != before[1]:
            whole, self.pair = self.pair, (served, before[1])
            self.simulation.network.after(0.03, lambda: setattr(self, "pair", whole))


class _HopefulFetch(Fetch):
    """Takes default rows for a version that is missing."""

    def receive(self, frame: Frame) -> None:
        super().receive(frame)
        self.error = None


class _HopefulRanker(RankerNode):
    fetch_class = _HopefulFetch


def _found(world: World, seeds: int = 60, **classes: type) -> str:
    """What the judge says of the first schedule that shows it."""
    for seed in range(seeds):
        try:
            Simulation(world, seed, **classes).play()
        except Broken as broken:
            return str(broken)
    return ""


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"shard_class": _ObligingShard}, "rows of version"),
        ({"ranker_class": _TwoStepRanker}, "rows of version"),
        ({"ranker_class": _HopefulRanker}, "were counted"),
    ],
)
def test_the_judge_sees_a_broken_promise(world: World, classes: dict[str, type], said: str) -> None:
    assert said in _found(world, **classes)


def test_a_ledger_without_numbers_loses_publications(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(pointer: Pointer | None, _newest: Intent | None, mine: Intent) -> Pointer:
        return flipped(pointer, mine, mine)

    monkeypatch.setattr(nodes, "flipped", careless)
    assert _found(world)


def test_a_shard_that_obeys_old_messages_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_live = ShardCore._go_live

    def obedient(self: ShardCore, pointer: Pointer) -> None:
        self.pointer = None
        go_live(self, pointer)

    monkeypatch.setattr(ShardCore, "_go_live", obedient)
    assert _found(world)
