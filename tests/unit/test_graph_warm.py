"""A training that begins where yesterday's ended."""

import numpy as np
import pytest
import torch

from models.transra.graph import Relation, Triples, make_graph
from models.transra.training import GraphTrainer
from models.transra.warm import warm_start
from tests.model_fixtures.graphs import PINS, RELATIONS, TYPES, USERS, config, model, random_graph

ANCHORS = ("none", "identity", "prototype", "snapshot")


def next_day():
    """Node 0 is gone, two are new: a user with two clicks, and a Pin that only the new user likes.

    `like` is gone, and there is a relation that there was not."""
    names = np.arange(1, USERS + PINS)
    type_N = np.append([0] * (USERS - 1) + [1] * PINS, [0, 1])
    number = {int(name): place for place, name in enumerate(names)}
    user, pin = len(names), len(names) + 1
    triples = Triples.of(
        np.array([number[1], user, user, user]),
        np.array([0, 0, 0, 2]),
        np.array([number[13], number[13], number[14], pin]),
    )
    relations = (*RELATIONS[:2], Relation(name="buy", head="user", tail="pin"))
    graph = make_graph(TYPES, type_N, relations, triples)
    return graph, np.append(names, [-1, -1])


@pytest.mark.parametrize("anchor", ANCHORS)
def test_what_was_there_stays_and_new_nodes_begin_beside_their_neighbours(anchor: str) -> None:
    old = random_graph()
    before = model(old, config("transr", anchor), 1)
    trained = GraphTrainer(before, old, seed=0)
    trained.train(0)
    graph, was = next_day()
    after = model(graph, config("transr", anchor), 2)
    fresh = after.score.delta[2].clone()
    found = warm_start(after, graph, before, old, was)
    assert (found.nodes, found.beside_neighbours, found.as_type) == (USERS + PINS - 1, 1, 1)
    assert (found.relations, found.new_relations) == (2, 1)
    vectors, earlier = after.table.vector_ND, before.table.vector_ND
    assert torch.equal(vectors[:-2], earlier[1:])
    assert torch.equal(after.table.squares_N[:-2], before.table.squares_N[1:])
    torch.testing.assert_close(vectors[-2], earlier[[13, 14]].mean(0))
    torch.testing.assert_close(vectors[-1], earlier[USERS:].mean(0))
    assert torch.equal(after.score.delta[:2], before.score.delta[:2])
    assert torch.equal(after.score.delta[2], fresh)
    if anchor == "snapshot":
        assert torch.equal(after.before_ND, vectors)
        assert after.known_before_N.tolist() == [True] * (USERS + PINS - 1) + [False] * 2


def test_a_warm_day_moves_less_than_a_cold_one() -> None:
    graph = random_graph()
    before = model(graph, config("transe"), 0)
    trainer = GraphTrainer(before, graph, seed=0)
    for number in range(20):
        trainer.train(number)
    warm, cold = (model(graph, config("transe"), 3) for _ in range(2))
    warm_start(warm, graph, before, graph, np.arange(len(graph)))
    for started in (warm, cold):
        GraphTrainer(started, graph, seed=1).train(0)

    def cosine(found) -> float:
        pairs = found.everybody(), before.everybody()
        return float(torch.cosine_similarity(*map(torch.from_numpy, pairs)).mean())

    assert cosine(warm) > 0.9
    assert cosine(cold) < 0.5
