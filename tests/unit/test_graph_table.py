"""The graph of a day against a loop over all days, made again, and repaired."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_store.contracts.edges import NODE_TYPES, GraphRules, graph_table
from feature_store.contracts.errors import InputError
from feature_store.lake.lake import Lake
from feature_store.reading.graph import build_graph, read_graph
from simulator.market.spec import market_spec
from tests.market_fixtures import DAYS, market_days, tiny_market

SPEC = market_spec("market", tiny_market())
USED = DAYS[12:15]
RULES = GraphRules(half_life_days=2.0).of(SPEC)
KEY = ("head_type", "head_id", "relation", "tail_type", "tail_id")


def write_day(lake: Lake, ds: str) -> None:
    made = market_days()[ds]
    lake.overwrite(SPEC.events_table(), ds, made.events)
    for table in SPEC.tables:
        lake.overwrite(table, ds, made.more[table.name])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("graph")
    made = Lake(root / "lake")
    for ds in USED:
        write_day(made, ds)
        build(made, ds, root)
    return made


def build(lake: Lake, ds: str, scratch: Path, rules: GraphRules = RULES) -> str:
    return build_graph(lake, SPEC, ds, rules, scratch, buckets=3)[0].digest


def rows(lake: Lake, ds: str) -> dict[tuple, tuple[float, str]]:
    table = lake.read(graph_table(), ds)
    keys = zip(*(table[c].to_pylist() for c in KEY), strict=True)
    return dict(
        zip(
            keys,
            zip(table["count"].to_pylist(), table["last_day"].to_pylist(), strict=True),
            strict=True,
        )
    )


def by_hand(ds: str) -> Counter:
    """The edges of one day, a row of its tables after the other."""
    found: Counter = Counter()
    made = market_days()[ds]
    for row in made.events.to_pylist():
        kinds = [a for a in RULES.actions if row["arrived_at"] is None and row["action"] == a]
        kinds += [label for label in RULES.labels if row[label] == 1]
        for kind in kinds:
            found["user", row["user_id"], kind, "pin", row["pin_id"]] += 1
    for row in made.more["offsite"].to_pylist():
        found["user", row["user_id"], row["kind"], "item", row["item_id"]] += 1
        found["user", row["user_id"], row["kind"], "advertiser", row["advertiser_id"]] += 1
    for row in made.more["campaigns"].to_pylist():
        found["pin", row["pin_id"], "promotes", "item", row["item_id"]] += 1
        found["advertiser", row["advertiser_id"], "owns", "pin", row["pin_id"]] += 1
    return found


def test_the_graph_of_a_day_is_a_loop_over_all_days(lake: Lake) -> None:
    expected: dict[tuple, float] = {}
    last: dict[tuple, str] = {}
    for ds in USED:
        expected = {key: count * 0.5 ** (1 / 2.0) for key, count in expected.items()}
        for key, count in by_hand(ds).items():
            expected[key] = expected.get(key, 0.0) + count
            last[key] = ds
        found = rows(lake, ds)
        assert found.keys() == expected.keys()
        assert {key: day for key, (_, day) in found.items()} == last
        for key, (count, _) in found.items():
            assert count == pytest.approx(expected[key], rel=1e-12)
    kinds = {(key[0], key[3]) for key in expected}
    assert kinds == {
        *(("user", tail) for tail in ("pin", "item", "advertiser")),
        ("pin", "item"),
        ("advertiser", "pin"),
    }


def test_what_is_hardly_left_is_forgotten(lake: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "lake")
    for ds in USED:
        write_day(other, ds)
        build(other, ds, tmp_path, GraphRules(half_life_days=2.0, least=0.6))
    found = rows(other, USED[-1])
    assert found
    assert found == {k: v for k, v in rows(lake, USED[-1]).items() if v[0] >= 0.6}


def test_a_day_made_again_has_the_same_bits(lake: Lake, tmp_path: Path) -> None:
    before = lake.artifact("graph", USED[1])
    assert build(lake, USED[1], tmp_path) == before.digest


def test_repaired_days_are_as_if_they_had_never_been_wrong(lake: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "lake")
    for ds in USED:
        write_day(other, ds)
        if ds == USED[1]:
            events = market_days()[ds].events
            other.overwrite(SPEC.events_table(), ds, events.slice(0, len(events) // 2))
        build(other, ds, tmp_path)
    right = [lake.artifact("graph", ds).digest for ds in USED]
    wrong = [other.artifact("graph", ds).digest for ds in USED]
    assert [a == b for a, b in zip(right, wrong, strict=True)] == [True, False, False]
    write_day(other, USED[1])
    assert [build(other, ds, tmp_path) for ds in USED[1:]] == right[1:]


def test_a_day_without_events_decays(lake: Lake, tmp_path: Path) -> None:
    other = Lake(tmp_path / "lake")
    write_day(other, USED[0])
    build(other, USED[0], tmp_path)
    for table in (SPEC.events_table(), *SPEC.tables):
        nothing = other.read(table, USED[0]).slice(0, 0)
        other.overwrite(table, USED[1], nothing)
    build(other, USED[1], tmp_path)
    first, second = rows(other, USED[0]), rows(other, USED[1])
    assert second == {key: (count * 0.5 ** (1 / 2.0), day) for key, (count, day) in first.items()}


def test_numbers_stand_for_nodes_of_enough_edges(lake: Lake) -> None:
    graph = read_graph(lake, USED[-1], least_degree=3)
    edges = rows(lake, USED[-1])
    degree = Counter(node for key in edges for node in (key[:2], key[3:]))
    kept = {key for key in edges if min(degree[key[:2]], degree[key[3:]]) >= 3}
    nodes = [(NODE_TYPES[t], i) for t, i in zip(graph.type_N, graph.id_N, strict=True)]
    named = {
        (*nodes[h], graph.relations[r][1], *nodes[t]): w
        for h, r, t, w in zip(
            graph.head_K, graph.relation_K, graph.tail_K, graph.weight_K, strict=True
        )
    }
    assert named.keys() == kept
    for key, weight in named.items():
        assert weight == pytest.approx(np.log1p(edges[key][0]), rel=1e-6)
    assert graph.left_out == len(degree) - len(nodes)
    assert graph.left_out > 0
    for (head, _, tail), k in zip(graph.relations, range(len(graph.relations)), strict=True):
        assert {nodes[h][0] for h in graph.head_K[graph.relation_K == k]} <= {head}
        assert {nodes[t][0] for t in graph.tail_K[graph.relation_K == k]} <= {tail}


def test_one_id_in_two_types_is_two_nodes(tmp_path: Path) -> None:
    other = Lake(tmp_path / "lake")
    write_day(other, USED[0])
    events = other.read(SPEC.events_table(), USED[0])
    shared = pa.array(["same"] * len(events))
    for name in ("user_id", "pin_id"):
        events = events.set_column(
            events.schema.get_field_index(name), events.schema.field(name), shared
        )
    other.overwrite(SPEC.events_table(), USED[0], events)
    build(other, USED[0], tmp_path)
    graph = read_graph(other, USED[0], least_degree=1)
    assert sorted(graph.type_N[graph.id_N == "same"]) == [0, 1]


def test_a_rule_for_what_there_is_not_is_refused(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="actions that the data set does not have"):
        build(lake, USED[0], tmp_path, GraphRules(actions=("clap",)))
    with pytest.raises(ValueError, match="half_life_days"):
        GraphRules(half_life_days=0)
