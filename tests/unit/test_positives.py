"""Days of pairs: which rows are pairs, what they weigh, in which order they are read."""

import numpy as np
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import shift_day
from feature_store.contracts.sequences import PairInputs
from feature_store.lake.buckets import stable_hash
from feature_store.reading.examples import Order
from feature_store.reading.positives import DayPairs, PairDays
from tests.model_fixtures.world import FIRST, World, spec

SECOND = shift_day(FIRST, 1)
INPUTS = PairInputs(labels={"click": 1.0, "checkout": 4.0}, actions={})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("pairs"))
    for ds in (FIRST, SECOND):
        made.add_day(ds, rows=300, users=25, pins=12)
    return made


def day(world: World, *days: str, inputs: PairInputs = INPUTS) -> DayPairs:
    return DayPairs(PairDays(lake=world.lake, spec=world.spec, inputs=inputs, days=days))


def pairs(reader: DayPairs, **order) -> list[tuple[int, int, float]]:
    rows = [
        list(zip(b["key:user"].tolist(), b["key:pin"].tolist(), b["weight"].tolist(), strict=True))
        for b in reader.batches(Order(batch_rows=64, **order))
    ]
    return [row for part in rows for row in part]


def expected(world: World, ds: str) -> list[tuple[int, int, float]]:
    """Every event that is a click or a checkout, told late or not."""
    events = world.lake.read(spec().events_table(), ds)
    weight = (
        pc.fill_null(events["click"], 0).to_numpy()
        + 4 * pc.fill_null(events["checkout"], 0).to_numpy()
    )
    user, pin = (stable_hash(events[n]).view(np.int64) for n in ("user_id", "pin_id"))
    rows = zip(user.tolist(), pin.tolist(), weight.tolist(), strict=True)
    return sorted(row for row in rows if row[2] > 0)


def test_pairs_are_the_positives_of_the_day_and_what_is_told_late(world: World) -> None:
    found = pairs(day(world, SECOND))
    assert sorted(found) == expected(world, SECOND)
    assert {weight for *_, weight in found} == {1.0, 4.0, 5.0}
    late = pc.sum(pc.is_valid(world.lake.read(spec().events_table(), SECOND)["arrived_at"]))
    assert sum(weight == 4.0 for *_, weight in found) >= late.as_py() > 0


def test_a_training_looks_back_and_a_scoring_does_not(world: World) -> None:
    both = day(world, FIRST, SECOND)
    assert sorted(pairs(both, seed=3)) == sorted(expected(world, FIRST) + expected(world, SECOND))
    assert sorted(pairs(both)) == expected(world, SECOND)
    halves = [pairs(both, seed=3, minutes=m) for m in ((0, 720), (720, 1440))]
    assert all(halves)
    assert sorted(halves[0] + halves[1]) == expected(world, SECOND)
    middle = both.middle_minute()
    share = len(pairs(both, seed=3, minutes=(0, middle))) / len(expected(world, SECOND))
    assert 0.45 < share < 0.6


def test_the_order_is_that_of_the_seed_and_ranks_share_the_pairs(world: World) -> None:
    both = day(world, FIRST, SECOND)
    assert pairs(both, seed=3) == pairs(both, seed=3)
    assert pairs(both, seed=3) != pairs(both, seed=4)
    shares = [pairs(both, seed=3, shard=(rank, 2)) for rank in range(2)]
    assert all(shares)
    assert sorted(shares[0] + shares[1]) == sorted(pairs(both, seed=3))


def test_drawn_pins_are_of_the_day_and_an_empty_batch_has_every_name(world: World) -> None:
    reader = day(world, SECOND)
    [batch, *_] = reader.batches(Order(batch_rows=64, seed=1, random_pins=40))
    known = set(reader.entities["pin"].take(np.arange(12))["key:pin"].tolist())
    assert len(known) == 12
    assert set(batch["random:key:pin"].tolist()) <= known
    assert set(batch["drawn:key:pin"].tolist()) <= known
    assert len(batch["random:key:pin"]) == 40
    empty = reader.empty()
    assert {n: x.dtype for n, x in empty.items()} == {n: x.dtype for n, x in batch.items()}
    assert not any(len(x) for x in empty.values())


def test_an_action_is_a_pair_of_an_impression_alone(world: World) -> None:
    inputs = PairInputs(labels={}, actions={"conversion": 2.0, "click": 1.0})
    found = pairs(day(world, SECOND, inputs=inputs))
    assert {weight for *_, weight in found} == {1.0}, "late labels are no actions"


def test_ids_of_the_day_are_known_and_others_are_not(world: World) -> None:
    users = day(world, SECOND).entities["user"]
    hashes = stable_hash(world.lake.read(spec().users_table(), SECOND)["user_id"])
    rows = users.rows_of(hashes)
    assert np.array_equal(users.take(rows)["key:user"], hashes.view(np.int64))
    assert users.rows_of(np.array([5], np.uint64))[0] == len(users) == 25
