"""Begin a day's training where yesterday's ended, for what is still there.

Shapes: N nodes of today, O of yesterday, R relations, K triples, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.transra.graph import Graph, Ints
from models.transra.model import GraphModel


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """What was taken over, and what began anew.

    Attributes:
        nodes: kept. Their accumulators are kept too, so that they move as slowly as before.
        beside_neighbours, as_type: new nodes that begin at the mean of neighbours that were kept,
            or, without any, at the mean of their type (or as drawn, where none of it was kept).
        relations, new_relations: by name.
    """

    nodes: int
    beside_neighbours: int
    as_type: int
    relations: int
    new_relations: int


@torch.no_grad()
def warm_start(
    model: GraphModel, graph: Graph, before: GraphModel, old: Graph, was_N: Ints
) -> WarmStart:
    """Give a new model what one of the day before knows; relations are matched by name.

    Args:
        graph: of the new model.
        old: of the model of the day before.
        was_N: what each node was numbered then; -1: it was not there.
    """
    kept = torch.from_numpy(was_N >= 0)
    was = torch.from_numpy(was_N)[kept]
    table, past = model.table, before.table
    table.vector_ND[kept] = past.vector_ND[was]
    table.squares_N[kept] = past.squares_N[was]
    beside = _beside_neighbours(table.vector_ND, graph, kept)
    as_type = _as_type(table.vector_ND, graph, kept, ~kept & ~beside)
    if model.config.score.anchor == "snapshot":
        model.before_ND.copy_(table.vector_ND)
        model.known_before_N.copy_(kept)
    if model.config.score.anchor == "prototype":
        model.prototype_TKD.copy_(before.prototype_TKD)
    model.log_scale.copy_(before.log_scale)
    relations = _take_relations(model, graph, before, old)
    return WarmStart(
        nodes=int(kept.sum()),
        beside_neighbours=int(beside.sum()),
        as_type=as_type,
        relations=relations,
        new_relations=len(graph.relations) - relations,
    )


def _beside_neighbours(vector_ND: Tensor, graph: Graph, kept_N: Tensor) -> Tensor:
    """Put new nodes at the mean of their kept neighbours; which [N] had any."""
    head_K, tail_K = (torch.from_numpy(x) for x in (graph.triples.head_K, graph.triples.tail_K))
    new = torch.cat([head_K, tail_K])
    other = torch.cat([tail_K, head_K])
    used = ~kept_N[new] & kept_N[other]
    new, other = new[used], other[used]
    total_ND = torch.zeros_like(vector_ND).index_add_(0, new, vector_ND[other])
    number_N = torch.bincount(new, minlength=len(graph))
    found_N = number_N > 0
    vector_ND[found_N] = total_ND[found_N] / number_N[found_N][:, None]
    return found_N


def _as_type(vector_ND: Tensor, graph: Graph, kept_N: Tensor, left_N: Tensor) -> int:
    """Put nodes without such neighbours at the mean of their type; how many."""
    type_N = torch.from_numpy(graph.type_N.astype(np.int64))
    for of_type in range(len(graph.types)):
        known, new = kept_N & (type_N == of_type), left_N & (type_N == of_type)
        if known.any():
            vector_ND[new] = vector_ND[known].mean(dim=0)
    return int(left_N.sum())


def _take_relations(model: GraphModel, graph: Graph, before: GraphModel, old: Graph) -> int:
    """Copy what belongs to a relation that was there; how many were."""
    was = {relation.name: number for number, relation in enumerate(old.relations)}
    pairs = [(n, was[r.name]) for n, r in enumerate(graph.relations) if r.name in was]
    now, then = (torch.tensor([p[i] for p in pairs], dtype=torch.int64) for i in range(2))
    past = dict(before.score.named_parameters())
    for name, parameter in model.score.named_parameters():
        parameter[now] = past[name][then]
    return len(pairs)
