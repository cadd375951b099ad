"""Ranks against a loop over candidates, and what a score that knows nothing may reach."""

import numpy as np
import pytest
import torch

from feature_store.contracts.errors import ContractViolation, InputError
from models.transra.graph import SIDES, Graph, KnownAnswers, Relation, Triples, make_graph
from models.transra.model import GraphModel
from models.transra.ranking import rank
from tests.model_fixtures.graphs import PINS, RELATIONS, TYPES, USERS, config, model, random_graph


def halves(graph: Graph) -> tuple[Triples, Triples]:
    rows = np.arange(len(graph.triples))
    return graph.triples.take(rows[::2]), graph.triples.take(rows[1::2])


def by_hand(found: GraphModel, graph: Graph, asked: Triples, known: set) -> list[float]:
    """The rank of every answer, heads first, one candidate after the other."""
    ranks = []
    for side in SIDES:
        for row in range(len(asked)):
            relation = int(asked.relation_K[row])
            ends = {s: int(asked.ends(s)[row]) for s in SIDES}

            def score(node: int, ends: dict = ends, relation: int = relation, side=side) -> float:
                at = {**ends, side: node}
                vectors = [found.vectors(torch.tensor([at[s]]))[None] for s in SIDES]
                return found.score.triples(vectors[0], torch.tensor([relation]), vectors[1]).item()

            right, better, equal = score(ends[side]), 0, 0
            for node in graph.candidates(relation, side):
                triple = {**ends, side: int(node)}
                if int(node) != ends[side] and (triple["head"], relation, triple["tail"]) in known:
                    continue
                value = score(int(node))
                same = int(node) == ends[side] or abs(value - right) < 1e-6
                better += value > right and not same
                equal += same and int(node) != ends[side]
            ranks.append(1 + better + equal / 2)
    return ranks


@pytest.mark.parametrize(
    ("name", "anchor"),
    [("transe", "none"), ("complex", "none"), ("transr", "identity"), ("transr", "prototype")],
)
def test_ranks_are_those_of_a_loop(name: str, anchor: str) -> None:
    graph = random_graph()
    found = model(graph, config(name, anchor))
    first, second = halves(graph)
    known = set(
        zip(
            *(getattr(graph.triples, c).tolist() for c in ("head_K", "relation_K", "tail_K")),
            strict=True,
        )
    )
    ranks = rank(found, graph, second, [first])
    order = sorted(range(len(ranks.rank_Q)), key=lambda i: (ranks.side_Q[i], ranks.relation_Q[i]))
    expected = by_hand(found, graph, second, known)
    sides = np.repeat([0, 1], len(second))
    relations = np.tile(second.relation_K, 2)
    wanted = sorted(range(len(expected)), key=lambda i: (sides[i], relations[i]))
    assert sorted((ranks.side_Q[i], ranks.relation_Q[i], ranks.rank_Q[i]) for i in order) == sorted(
        (sides[i], relations[i], expected[i]) for i in wanted
    )


@pytest.mark.parametrize("name", ["transe", "twhin", "transr"])
def test_a_constant_score_has_the_mrr_of_chance(name: str) -> None:
    graph = random_graph()
    found = model(graph, config(name))
    with torch.no_grad():
        found.table.vector_ND.zero_()
    ranks = rank(found, graph, graph.triples, [])
    expected = []
    for side in SIDES:
        for row in range(len(graph.triples)):
            other = "head" if side == "tail" else "tail"
            relation = int(graph.triples.relation_K[row])
            same = (graph.triples.relation_K == relation) & (
                graph.triples.ends(other) == graph.triples.ends(other)[row]
            )
            left = len(graph.candidates(relation, side)) - int(same.sum()) + 1
            expected.append((left + 1) / 2)
    assert sorted(ranks.rank_Q) == sorted(expected)
    assert ranks.metrics()["hits_at_1"] == np.mean(np.array(expected) == 1)


def test_a_score_that_is_no_number_ranks_last() -> None:
    graph = random_graph()
    found = model(graph, config("transe"))
    with torch.no_grad():
        found.table.vector_ND.fill_(torch.nan)
    ranks = rank(found, graph, graph.triples, [])
    assert ranks.metrics()["hits_at_3"] == 0


def test_candidates_have_the_type_of_the_relation() -> None:
    graph = random_graph()
    found = model(graph, config("transe"))
    ranks = rank(found, graph, graph.triples, [])
    clicks = ranks.of_relation(0)
    assert clicks.rank_Q[clicks.side_Q == 1].max() <= PINS
    assert clicks.rank_Q[clicks.side_Q == 0].max() <= USERS


def test_sampled_candidates_hold_the_answer_and_can_only_help() -> None:
    graph = random_graph()
    found = model(graph, config("transr"))
    everything = rank(found, graph, graph.triples, [])
    some = rank(found, graph, graph.triples, [], sampled=4, seed=1)
    again = rank(found, graph, graph.triples, [], sampled=4, seed=1)
    assert (some.rank_Q == again.rank_Q).all()
    assert some.metrics()["mrr"] >= everything.metrics()["mrr"]


def test_nothing_to_ask_is_no_number() -> None:
    graph = random_graph()
    nothing = graph.triples.take(np.empty(0, np.int64))
    assert np.isnan(rank(model(graph, config("transe")), graph, nothing, []).metrics()["mrr"])


def test_known_answers_are_found_among_candidates() -> None:
    triples = Triples.of(np.array([0, 0, 1, 0]), np.array([0, 0, 0, 1]), np.array([5, 3, 5, 4]))
    known = KnownAnswers(triples, 6, 2)
    question, place = known.among(
        np.array([0, 1, 2]), np.array([0, 0, 0]), "tail", np.array([3, 4, 5])
    )
    assert list(zip(question.tolist(), place.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 2)]
    question, place = known.among(np.array([5]), np.array([0]), "head", np.array([0, 2]))
    assert list(zip(question.tolist(), place.tolist(), strict=True)) == [(0, 0)]


def test_self_loops_are_left_out_and_equal_triples_added_up() -> None:
    type_N = np.array([0] * USERS + [1] * PINS)
    head, tail = np.array([12, 0, 0, 1]), np.array([12, 13, 13, 14])
    triples = Triples.of(head, np.array([2, 0, 0, 1]), tail, np.array([1, 2, 3, 4]))
    graph = make_graph(TYPES, type_N, RELATIONS, triples)
    assert (graph.self_loops, graph.repeated) == (1, 1)
    assert graph.triples.head_K.tolist() == [0, 1]
    assert graph.triples.weight_K.tolist() == [5.0, 4.0]


def test_what_does_not_fit_the_types_is_refused() -> None:
    type_N = np.array([0] * USERS + [1] * PINS)
    one = np.array([0])
    with pytest.raises(ContractViolation, match="head of another type"):
        make_graph(TYPES, type_N, RELATIONS, Triples.of(one + 12, one, one + 13))
    with pytest.raises(ContractViolation, match="a relation that the graph does not have"):
        make_graph(TYPES, type_N, RELATIONS, Triples.of(one, one + 3, one + 13))
    with pytest.raises(ContractViolation, match="a tail that the graph does not have"):
        make_graph(TYPES, type_N, RELATIONS, Triples.of(one, one, one + 99))
    with pytest.raises(InputError, match="do not fit its types"):
        make_graph(TYPES, type_N, (Relation(name="x", head="user", tail="shop"),), graph_of_none())


def graph_of_none() -> Triples:
    return Triples.of(*np.empty((3, 0)))
