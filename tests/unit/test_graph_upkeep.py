"""The graph is kept like every table: forgotten from, moved to other buckets, dropped by age."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.config import RetentionConfig
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.edges import GRAPH, GraphRules, graph_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake
from feature_store.lake.staging import read_files, stage_file
from feature_store.reading.graph import build_graph, graph_layout
from feature_store.spark.rebucket import MoveTask, move_bucket, sources
from jobs.upkeep.retain import expired_days
from jobs.upkeep.scrub import known, prove_gone, scrub_day
from simulator.market.spec import market_spec
from tests.market_fixtures import DAYS, market_days, tiny_market

SPEC = market_spec("market", tiny_market())
TABLE, DS = graph_table(), DAYS[12]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    day = market_days()[DS]
    made.overwrite(SPEC.events_table(), DS, day.events)
    for table in SPEC.tables:
        made.overwrite(table, DS, day.more[table.name])
    build_graph(made, SPEC, DS, GraphRules(), tmp_path, buckets=3)
    return made


@pytest.mark.parametrize("entity", ["user", "pin"])
def test_who_is_forgotten_has_no_edge_and_others_keep_theirs(lake: Lake, entity: str) -> None:
    before = lake.read(TABLE, DS)
    ends = {"user": ("head",), "pin": ("head", "tail")}[entity]
    of = {e: before.filter(pc.equal(before[f"{e}_type"], entity))[f"{e}_id"] for e in ends}
    gone = pc.unique(of[ends[-1]]).slice(0, 2)
    hit = pa.array([False] * len(before))
    for end in ends:
        mine = pc.equal(before[f"{end}_type"], entity)
        hit = pc.or_(hit, pc.and_(mine, pc.is_in(before[f"{end}_id"], value_set=gone)))
    assert known(lake, [TABLE], entity, gone, ()) == set(gone.to_pylist())
    scrub_day(lake, TABLE, DS, entity, gone, ())
    assert lake.read(TABLE, DS).equals(before.filter(pc.invert(hit)))
    assert known(lake, [TABLE], entity, gone, ()) == set()


def test_an_id_of_another_type_that_is_spelt_alike_stays(lake: Lake) -> None:
    before = lake.read(TABLE, DS)
    users = before.filter(pc.equal(before["head_type"], "user"))["head_id"].slice(0, 1)
    gone = users.combine_chunks()
    assert known(lake, [TABLE], "pin", gone, ()) == set()
    assert scrub_day(lake, TABLE, DS, "pin", gone, ()) == 0
    prove_gone(lake, [TABLE], "pin", gone, ())


def test_edges_move_to_the_buckets_of_their_heads(lake: Lake) -> None:
    files = lake.bucket_files(GRAPH, DS)
    moved = []
    for bucket in range(2):
        task = MoveTask(
            root=lake.root,
            table=TABLE,
            target="graph.rebucketed",
            ds=DS,
            bucket=bucket,
            buckets=2,
            files=tuple(f for b in sources(bucket, 3, 2) for f in files[b]),
        )
        moved.append(move_bucket(task))
    target = TABLE.model_copy(update={"name": "graph.rebucketed"})
    lake.commit(target, DS, moved, properties=graph_layout(2).properties())
    for bucket, found in lake.bucket_files(target.name, DS).items():
        heads = read_files(found, TABLE, ["head_id"])["head_id"]
        assert set(bucket_of(heads, 2)) == {bucket}
    order = [(name, "ascending") for name in TABLE.key]
    assert lake.read(target, DS).sort_by(order).equals(lake.read(TABLE, DS).sort_by(order))


def test_old_days_go_with_the_pools(lake: Lake) -> None:
    days = days_between(DS, shift_day(DS, 4))
    rows = lake.read(TABLE, DS)
    for ds in days[1:]:
        staged = stage_file(lake.root, TABLE, ds, rows, bucket=0)
        lake.commit(TABLE, ds, [staged], properties=graph_layout(3).properties())
    kept = RetentionConfig(daily_pools=2)
    gone = expired_days(lake, (), kept, frozenset({days[1]}))
    assert gone == {GRAPH: (days[0], days[2])}
