"""Timelines and edges against a plain loop over the same events."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import shift_day
from feature_store.lake.buckets import stable_hash
from feature_store.reading.actions import SCHEMA, actions
from feature_store.reading.edges import count_edges, edges
from feature_store.reading.timelines import newest_first, timelines
from tests.model_fixtures.world import FIRST, World

DAYS = tuple(shift_day(FIRST, i) for i in range(3))
_MICROSECONDS = 86_400_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    for ds in DAYS:
        made.add_day(ds, rows=300, users=25, pins=12)
    return made


def events(world: World) -> list[dict]:
    """Impressions as rows, with hashed ids and declared codes."""
    rows = []
    for ds in DAYS:
        table = world.lake.read(world.spec.events_table(), ds)
        table = table.filter(pc.is_null(table["arrived_at"]))
        for name in ("user_id", "pin_id", "event_id"):
            table = table.append_column(f"#{name}", pa.array(stable_hash(table[name])))
        rows += table.to_pylist()
    for row in rows:
        row["us"] = int(row["ts"].timestamp() * 1_000_000 + 0.5)
        row["action"] = 1 + world.spec.actions.index(row["action"])
    return rows


def expected_timelines(world: World, most: int) -> dict[int, list[tuple[int, int, int]]]:
    of_user = defaultdict(list)
    for row in events(world):
        of_user[row["#user_id"]].append(
            (row["us"], row["#event_id"], row["#pin_id"], row["action"])
        )
    return {
        user: [(us, pin, action) for us, _, pin, action in sorted(rows, reverse=True)[:most]]
        for user, rows in of_user.items()
    }


def read_timelines(world: World, **how: object) -> dict[int, list[tuple[int, int, int]]]:
    found: dict[int, list[tuple[int, int, int]]] = {}
    with actions(world.lake, world.spec, DAYS, world.root, buckets=3) as divided:
        for batch in timelines(divided, **how):
            assert len(batch) <= how["users"]
            for i, user in enumerate(batch.user_U.tolist()):
                part = slice(batch.offsets[i], batch.offsets[i + 1])
                columns = (batch.ts_A[part], batch.pin_A[part], batch.action_A[part])
                assert user not in found, "a user belongs to one batch"
                found[user] = list(zip(*(c.tolist() for c in columns), strict=True))
    return found


@pytest.mark.parametrize("most", [1, 4, 10_000])
@pytest.mark.parametrize("seed", [None, 3])
def test_timelines_are_what_a_loop_finds(world: World, most: int, seed: int | None) -> None:
    found = read_timelines(world, users=7, max_actions=most, seed=seed)
    assert found == expected_timelines(world, most)


def test_ranks_share_the_users(world: World) -> None:
    parts = [read_timelines(world, users=50, max_actions=9, shard=(r, 2)) for r in range(2)]
    assert parts[0].keys().isdisjoint(parts[1])
    assert parts[0] | parts[1] == expected_timelines(world, 9)


def test_a_seed_decides_the_order(world: World) -> None:
    orders = [list(read_timelines(world, users=5, max_actions=2, seed=s)) for s in (1, 1, 2, None)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert set(orders[2]) == set(orders[3])


def test_edges_are_what_a_loop_counts(world: World) -> None:
    wanted: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for row in events(world):
        key = (row["#user_id"], row["action"], row["#pin_id"])
        wanted[key].append(row["us"] // _MICROSECONDS)
    today, found = max(d for days in wanted.values() for d in days), {}
    with actions(world.lake, world.spec, DAYS, world.root, buckets=4) as divided:
        for part in edges(divided, ds=DAYS[-1], half_life_days=2.0):
            columns = (part.user_K, part.relation_K, part.pin_K, part.count_K, part.weight_K)
            for user, relation, pin, count, weight in zip(*columns, strict=True):
                found[int(user), int(relation), int(pin)] = (int(count), float(weight))
            assert [wanted[k] for k in zip(*(c.tolist() for c in columns[:3]), strict=True)]
            for key, last in zip(zip(*columns[:3], strict=True), part.last_K, strict=True):
                assert max(wanted[tuple(map(int, key))]) == last
    assert found.keys() == wanted.keys()
    for key, days in wanted.items():
        assert found[key][0] == len(days)
        weight = sum(0.5 ** ((today - d) / 2.0) for d in days)
        assert math.isclose(found[key][1], weight, rel_tol=1e-12)


def test_files_are_gone_afterwards_and_unknown_actions_are_counted(
    world: World, tmp_path: Path
) -> None:
    spec = world.spec.model_copy(update={"actions": world.spec.actions[1:]})
    first = world.spec.actions[0]
    wanted = sum(
        world.lake.read(world.spec.events_table(), ds)
        .filter((pc.field("action") == first) & pc.field("arrived_at").is_null())
        .num_rows
        for ds in DAYS
    )
    with actions(world.lake, spec, DAYS, tmp_path, buckets=2) as divided:
        assert len(list(divided.folder.iterdir())) == 2
        assert divided.dropped == wanted > 0
    assert list(tmp_path.iterdir()) == []


def test_nobody_and_the_future() -> None:
    nothing = {f.name: np.empty(0, f.type.to_pandas_dtype()) for f in SCHEMA}
    assert len(newest_first(nothing, 5)) == 0
    assert len(count_edges(nothing, 0, 1.0)) == 0
    one = {name: np.ones(1, a.dtype) for name, a in nothing.items()}
    assert len(count_edges(one, 1, 1.0)) == 1
    with pytest.raises(ValueError, match="expected days up to 0, found 1"):
        count_edges(one, 0, 1.0)
