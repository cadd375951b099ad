"""The graph model as an upstream: nodes come and go, their rows go with them."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest
import torch

from feature_store.contracts.base import Entity
from feature_store.contracts.edges import NODE_TYPES, edge_kinds
from feature_store.contracts.errors import InputError
from feature_store.reading.day_edges import DayEdges
from feature_store.reading.examples import Order
from feature_store.reading.numbered import NumberedGraph
from jobs.datasets.registry import dataset_spec
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from models.transra.config import DrawConfig, GraphConfig, ScoreConfig
from models.transra.family import FAMILY
from models.transra.objective import GraphObjective
from tests.architecture.sources import ROOT

SPEC = dataset_spec("market", "")
CONFIG = GraphConfig(
    embedding_dim=8, draw=DrawConfig(chunk_rows=4, negatives=6), passes=2, first_passes=5
)


def graph(users: range, pins: range, extra: list[tuple[int, str, int]] = ()) -> NumberedGraph:
    """Users click every Pin of their parity; `extra` edges come from outside of the declaration."""
    kinds = tuple(sorted({("user", "click", "pin"), *(("user", k, "pin") for _, k, _ in extra)}))
    ids = [*(f"u{u}" for u in users), *(f"p{p}" for p in pins)]
    place = {name: number for number, name in enumerate(ids)}
    edges = [(u, "click", p) for u in users for p in pins if (u - p) % 2 == 0] + list(extra)
    code = {kind[1]: number for number, kind in enumerate(kinds)}
    return NumberedGraph(
        id_N=np.array(ids, object),
        type_N=np.array([0] * len(users) + [1] * len(pins), np.int8),
        relations=kinds,
        head_K=np.array([place[f"u{u}"] for u, _, _ in edges], np.int64),
        relation_K=np.array([code[k] for _, k, _ in edges], np.int64),
        tail_K=np.array([place[f"p{p}"] for _, _, p in edges], np.int64),
        weight_K=np.ones(len(edges), np.float32),
        last_K=np.full(len(edges), 20_000, np.int64),
        left_out=0,
    )


def day(of: NumberedGraph, *, begins: bool = False) -> DayEdges:
    """A reader of a graph that is not in any lake."""
    made = DayEdges(
        None, "2025-03-01", FAMILY.edges(SPEC, CONFIG), since="1970-01-02", begins=begins
    )
    made.__dict__["graph"] = of
    return made


def objective(config: GraphConfig = CONFIG) -> GraphObjective:
    torch.manual_seed(0)
    return FAMILY.objective(SPEC, "graph", config, ())


def trained(of: NumberedGraph, made: GraphObjective | None = None) -> GraphObjective:
    begins = made is None
    made = made or objective()
    made.meet(of)
    reader = day(of, begins=begins)
    trainer = Trainer(
        made, TrainingConfig(), torch.device("cpu"), learning_rate=1e-2, empty=reader.empty()
    )
    trainer.train(reader.batches(Order(batch_rows=16, seed=1)), seed=("test",))
    return made


def keys(*names: str) -> torch.Tensor:
    from feature_store.lake.buckets import stable_hash

    return torch.from_numpy(stable_hash(pa.array(names)).view(np.int64))


def test_what_is_learned_tells_what_users_do_from_what_they_do_not() -> None:
    of = graph(range(10), range(12))
    made = trained(of)
    made.meet(of)  # it has seen all of these nodes
    reader = day(of)
    trainer = Trainer(
        made, TrainingConfig(), torch.device("cpu"), learning_rate=1e-2, empty=reader.empty()
    )
    scored = trainer.score(reader.batches(Order(batch_rows=7)))["link"]
    assert scored["rows"] == 2 * len(of.head_K)
    # Half of the Pins that are drawn to compare with were clicked as well.
    assert scored["auc"] > 0.65
    assert "ne" not in scored, "distances are no probabilities"


def test_rows_follow_their_nodes_from_day_to_day() -> None:
    made = trained(graph(range(10), range(12)))
    stayed, gone, new = keys("u3"), keys("u0"), keys("u11")
    before = made.vectors("user", stayed)
    sums = made.model.table.squares_N.sum()
    made.meet(graph(range(2, 12), range(12)))
    torch.testing.assert_close(made.vectors("user", stayed), before)
    assert 0 < made.model.table.squares_N.sum() < sums
    mean = made.model.vectors((made.model.type_N == 0).nonzero()[:, 0]).mean(0)
    torch.testing.assert_close(
        made.vectors("user", gone)[0], torch.nn.functional.normalize(mean, dim=0)
    )
    assert not torch.allclose(made.vectors("user", new)[0], made.vectors("user", gone)[0])
    numbers = made.numbers()
    assert (numbers["graph_nodes_new"], numbers["graph_nodes_beside_neighbours"]) == (2, 2)


def test_a_snapshot_says_how_many_nodes_it_has() -> None:
    made, other = trained(graph(range(10), range(12))), objective()
    weights = {k: v.clone() for k, v in made.state_dict().items()}
    other.load_state_dict(weights)
    asked = keys("u3", "u7", "nobody")
    torch.testing.assert_close(other.vectors("user", asked), made.vectors("user", asked))
    norms = made.embed("user", {"key:user": asked}).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3))


def test_a_node_is_its_type_and_its_id() -> None:
    of = graph(range(10), range(12))
    ids = of.id_N.copy()
    ids[0] = ids[10]  # a user that is spelt like a Pin
    made = trained(dataclasses.replace(of, id_N=ids))
    same = keys(ids[0])
    assert not torch.allclose(made.vectors("user", same), made.vectors("pin", same))


def test_a_step_moves_the_rows_of_its_nodes_and_keeps_the_bound() -> None:
    of = graph(range(10), range(200))
    made = objective()
    made.meet(of)
    with torch.no_grad():
        made.model.table.vector_ND.mul_(0.999)
    before = made.model.table.vector_ND.detach().clone()
    reader = day(of)
    trainer = Trainer(
        made, TrainingConfig(), torch.device("cpu"), learning_rate=1e-2, empty=reader.empty()
    )
    first = next(reader.batches(Order(batch_rows=4, seed=1)))
    trainer.train([first], seed=("test",))
    moved = (made.model.table.vector_ND != before).any(dim=1)
    ends = np.union1d(of.head_K[first["edge"]], of.tail_K[first["edge"]])
    assert moved[torch.from_numpy(ends)].all()
    # 4 heads, 4 tails, and 6 negatives of either type at most.
    assert moved.sum() <= 20
    assert made.model.table.vector_ND.norm(dim=1).max() <= 1 + 1e-6
    assert torch.equal(moved, made.model.table.squares_N > 0)


def test_a_new_node_is_not_scored_by_the_edges_that_place_it() -> None:
    made = trained(graph(range(10), range(12)))
    of = graph(range(2, 12), range(12))
    made.meet(of)
    [batch] = day(of).batches(Order(batch_rows=10_000))
    target = made.targets({k: torch.from_numpy(v) for k, v in batch.items()})[:, 0]
    new = np.isin(of.id_N[of.head_K[batch["edge"]]], ["u10", "u11"])
    assert new.any()
    np.testing.assert_array_equal(torch.isnan(target).numpy(), np.tile(new, 2))


def test_edges_of_a_kind_that_nobody_declared_are_left_out_and_counted() -> None:
    known, strange = graph(range(10), range(12)), [(1, "sang_about", 3), (2, "sang_about", 4)]
    made = trained(graph(range(10), range(12), strange))
    assert made.numbers()["graph_edges_of_unknown_relations"] == 2
    assert made.numbers()["graph_edges"] == len(known.head_K)


@pytest.mark.parametrize("edges", [0, 1])
def test_a_graph_of_one_edge_or_none_is_learned_too(edges: int) -> None:
    of = graph(range(10), range(12))
    few = {
        n: getattr(of, n)[:edges] for n in ("head_K", "relation_K", "tail_K", "weight_K", "last_K")
    }
    made = trained(dataclasses.replace(of, **few))
    assert torch.isfinite(made.model.table.vector_ND).all()


def test_weights_without_some_nodes() -> None:
    made = trained(graph(range(10), range(12)))
    asked, others = keys("u3"), keys("u4", "u5")
    before = made.vectors("user", others)

    def without(of: GraphObjective, entity: Entity) -> tuple[dict, int]:
        return FAMILY.without(of.config, of.state_dict(), entity, asked.numpy())

    assert without(made, "pin")[1] == 0, "no Pin is called like that"
    left = objective()
    weights, removed = without(made, "user")
    left.load_state_dict(weights)
    assert removed == 1
    assert len(left.key_N) == len(made.key_N) - 1
    assert without(left, "user")[1] == 0
    torch.testing.assert_close(left.vectors("user", others), before)


def test_every_kind_of_edge_of_a_market_is_a_relation() -> None:
    names = {r.name for r in objective().relations}
    assert {"user_click_pin", "user_checkout_item", "user_page_visit_advertiser"} <= names
    assert {"pin_promotes_item", "advertiser_owns_pin"} <= names
    assert len(names) == len(edge_kinds(SPEC))
    assert {t for kind in edge_kinds(SPEC) for t in (kind[0], kind[2])} == set(NODE_TYPES)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="anchor relation"):
        objective(dataclasses.replace(CONFIG, score=ScoreConfig(anchor_relation="applause")))
    with pytest.raises(InputError, match="reads no pools"):
        FAMILY.objective(SPEC, "graph", CONFIG, SPEC.features_of("user")[:1])
    with pytest.raises(ValueError, match="first_passes"):
        GraphConfig(first_passes=0)


def test_the_recipe_of_the_how_to_is_whole() -> None:
    page = (ROOT / "docs" / "howto" / "graph_upstream.md").read_text()
    [shown] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(shown, names)  # noqa: S102 - our own page
    recipe = names["build"]()
    declared = SPEC.with_upstreams(recipe.upstreams).declared_upstreams
    assert [u.name for u in declared] == ["ctr", "cvr", "graph", "weekly"]
    for upstream in recipe.upstreams[:2]:
        made = FAMILY.objective(SPEC, upstream.name, recipe.of(upstream).model, ())
        assert made.config.embedding_dim == 16
