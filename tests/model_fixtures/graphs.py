"""Small graphs and models of them."""

import dataclasses
from typing import Any

import numpy as np
import torch

from models.transra.config import DrawConfig, GraphConfig, GraphLossConfig, ScoreConfig
from models.transra.graph import Graph, Relation, Triples, make_graph
from models.transra.model import GraphModel
from models.transra.training import new_model

TYPES = ("user", "pin")
RELATIONS = (
    Relation(name="click", head="user", tail="pin"),
    Relation(name="save", head="user", tail="pin"),
    Relation(name="like", head="pin", tail="pin"),
)
USERS, PINS = 12, 9


def random_graph(seed: int = 0, triples: int = 60) -> Graph:
    """Users 0 .. 11, Pins 12 .. 20, triples of the right types without order."""
    random = np.random.default_rng(seed)
    relation = random.integers(0, 3, triples)
    users = random.integers(0, USERS, triples)
    pins = USERS + random.integers(0, PINS, (2, triples))
    head = np.where(relation == 2, pins[0], users)
    type_N = np.array([0] * USERS + [1] * PINS)
    return make_graph(TYPES, type_N, RELATIONS, Triples.of(head, relation, pins[1]))


def blocks(groups: int = 4, each: int = 6) -> Graph:
    """Users who click the Pins of their own group and no others: something to learn."""
    head, tail = np.divmod(np.arange(groups * each * each), each)
    tail = groups * each + (head // each) * each + tail
    type_N = np.repeat([0, 1], groups * each)
    relations = (Relation(name="click", head="user", tail="pin"),)
    return make_graph(TYPES, type_N, relations, Triples.of(head, np.zeros_like(head), tail))


def config(score: str = "transr", anchor: str = "none", **changes: Any) -> GraphConfig:
    """A small model; `changes` are fields of it, of its score or of its loss."""
    nested = {"score": {"name": score, "anchor": anchor}, "loss": {}, "draw": {}, "": {}}
    for name, value in changes.items():
        part, _, field = name.rpartition("__")
        nested[part][field] = value
    small = DrawConfig(chunk_rows=8, chunks=4, negatives=6, in_batch=False, relation_power=1.0)
    made = GraphConfig(
        score=ScoreConfig(**nested["score"]),
        loss=GraphLossConfig(**nested["loss"]),
        draw=dataclasses.replace(small, **nested["draw"]),
        embedding_dim=8,
    )
    return dataclasses.replace(made, **nested[""])


def model(graph: Graph, made: GraphConfig, seed: int = 0) -> GraphModel:
    """A model whose matrices are not the identity any more."""
    found = new_model(graph, made, seed)
    with torch.no_grad():
        for name, parameter in found.score.named_parameters():
            if name == "delta":
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    return found
