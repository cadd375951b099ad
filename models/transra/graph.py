"""A graph in memory: typed nodes, typed and directed relations, and which answers are known.

Shapes: N nodes, R relations, K triples, Q questions (a node, a relation, a side), P candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import ContractViolation, InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# Which end of a triple is asked for.
Side = Literal["head", "tail"]
SIDES: tuple[Side, ...] = ("head", "tail")


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """A directed relation between two types of nodes.

    Attributes:
        head, tail: types of nodes.
    """

    name: str
    head: str
    tail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Triples:
    """Edges of a graph, in any order.

    Attributes:
        head_K, tail_K: numbers of nodes.
        relation_K: positions in the graph's relations.
        weight_K: what each counts in the loss.
    """

    head_K: Ints
    relation_K: Ints
    tail_K: Ints
    weight_K: Floats

    @classmethod
    def of(
        cls,
        head_K: npt.NDArray,
        relation_K: npt.NDArray,
        tail_K: npt.NDArray,
        weight_K: npt.NDArray | None = None,
    ) -> "Triples":
        """Triples of arrays; they weigh 1 each without weights."""
        weight_K = np.ones(len(head_K), np.float32) if weight_K is None else weight_K
        return cls(
            head_K=np.ascontiguousarray(head_K, np.int64),
            relation_K=np.ascontiguousarray(relation_K, np.int64),
            tail_K=np.ascontiguousarray(tail_K, np.int64),
            weight_K=np.ascontiguousarray(weight_K, np.float32),
        )

    def __len__(self) -> int:
        return len(self.head_K)

    def take(self, rows: npt.NDArray) -> "Triples":
        """Chosen ones, in that order."""
        return Triples(
            head_K=self.head_K[rows],
            relation_K=self.relation_K[rows],
            tail_K=self.tail_K[rows],
            weight_K=self.weight_K[rows],
        )

    def ends(self, side: Side) -> Ints:
        """The nodes at one side."""
        return self.head_K if side == "head" else self.tail_K


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes by number, and the triples between them.

    Attributes:
        types: of nodes; `type_N` are positions in it.
        relations: each says the types of its ends.
        self_loops, repeated: triples that were left out, and that were added to an equal one.
    """

    types: tuple[str, ...]
    type_N: npt.NDArray[np.int8]
    relations: tuple[Relation, ...]
    triples: Triples
    self_loops: int = 0
    repeated: int = 0
    of_type: tuple[Ints, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "of_type", tuple(np.flatnonzero(self.type_N == t) for t in range(len(self.types)))
        )

    def __len__(self) -> int:
        return len(self.type_N)

    def type_of(self, relation: int, side: Side) -> int:
        """The position in `types` of one end of a relation."""
        chosen = self.relations[relation]
        return self.types.index(chosen.head if side == "head" else chosen.tail)

    def types_of(self, side: Side) -> Ints:
        """The same for every relation, [R]."""
        return np.array([self.type_of(r, side) for r in range(len(self.relations))], np.int64)

    def candidates(self, relation: int, side: Side) -> Ints:
        """The nodes that may stand at one end of a relation."""
        return self.of_type[self.type_of(relation, side)]


def make_graph(
    types: Sequence[str],
    type_N: npt.NDArray,
    relations: Sequence[Relation],
    triples: Triples,
) -> Graph:
    """A graph whose triples fit its types: self-loops left out, equal triples added up.

    Raises:
        InputError: a relation names a type that there is not, or is named twice.
        ContractViolation: a triple names a node or a relation that there is not, or a node of
            another type than its relation has there.
    """
    names = [r.name for r in relations]
    unknown = sorted({t for r in relations for t in (r.head, r.tail)} - set(types))
    if unknown or len(set(names)) < len(names) or not names:
        raise InputError(
            "the relations of a graph do not fit its types of nodes",
            expected=f"relations named once, between {' | '.join(types)}",
            found=f"types {' '.join(unknown)}" if unknown else f"relations {' '.join(names)}",
        )
    graph = Graph(
        types=tuple(types),
        type_N=np.ascontiguousarray(type_N, np.int8),
        relations=tuple(relations),
        triples=triples,
    )
    _check_ends(graph)
    loops = triples.head_K == triples.tail_K
    kept = triples.take(np.flatnonzero(~loops)) if loops.any() else triples
    merged = _merged(kept)
    return Graph(
        types=graph.types,
        type_N=graph.type_N,
        relations=graph.relations,
        triples=merged,
        self_loops=int(loops.sum()),
        repeated=len(kept) - len(merged),
    )


def _check_ends(graph: Graph) -> None:
    triples = graph.triples
    for what, found, most in (
        ("relation", triples.relation_K, len(graph.relations)),
        *((side, triples.ends(side), len(graph)) for side in SIDES),
    ):
        if len(found) and (found.min() < 0 or found.max() >= most):
            raise ContractViolation(
                f"a triple names a {what} that the graph does not have",
                expected=f"numbers 0 .. {most - 1}",
                found=f"{int(found.min())} .. {int(found.max())}",
            )
    for side in SIDES:
        wrong = graph.type_N[triples.ends(side)] != graph.types_of(side)[triples.relation_K]
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            relation = graph.relations[int(triples.relation_K[first])]
            raise ContractViolation(
                f"{int(wrong.sum())} triples have a {side} of another type than their relation",
                where=f"triple {first}, relation {relation.name}",
                expected=getattr(relation, side),
                found=graph.types[int(graph.type_N[triples.ends(side)[first]])],
            )


def _merged(triples: Triples) -> Triples:
    """Equal triples as one, whose weight is their sum; the first of each keeps its place."""
    order = np.lexsort((triples.tail_K, triples.head_K, triples.relation_K))
    found = triples.take(order)
    new = np.ones(len(found), bool)
    new[1:] = False
    for ends in (found.relation_K, found.head_K, found.tail_K):
        new[1:] |= ends[1:] != ends[:-1]
    if new.all():
        return triples
    first = np.flatnonzero(new)
    weight = np.add.reduceat(found.weight_K, first)
    place = np.minimum.reduceat(order, first)
    chosen = triples.take(np.sort(place))
    return Triples.of(chosen.head_K, chosen.relation_K, chosen.tail_K, weight[np.argsort(place)])


class KnownAnswers:
    """Which nodes are known to answer (node, relation, side): they are no negatives of it.

    Args:
        triples: what is known; for a training never more than what it trains on.
        num_nodes, num_relations: of the graph.
    """

    def __init__(self, triples: Triples, num_nodes: int, num_relations: int) -> None:
        self._relations = num_relations
        self._keys: dict[Side, Ints] = {}
        self._answers: dict[Side, Ints] = {}
        for side in SIDES:
            other: Side = "head" if side == "tail" else "tail"
            keys = triples.ends(other) * num_relations + triples.relation_K
            order = np.lexsort((triples.ends(side), keys))
            self._keys[side], self._answers[side] = keys[order], triples.ends(side)[order]
        self._place = np.full(num_nodes, -1, np.int32)

    def among(
        self, node_Q: Ints, relation_Q: Ints, side: Side, candidate_P: Ints
    ) -> tuple[Ints, Ints]:
        """Where candidates are known answers: (questions, positions in `candidate_P`).

        Args:
            node_Q: the node at the other side.
            candidate_P: distinct.
        """
        keys, wanted = self._keys[side], node_Q * self._relations + relation_Q
        first = np.searchsorted(keys, wanted, "left")
        number = np.searchsorted(keys, wanted, "right") - first
        question = np.repeat(np.arange(len(node_Q)), number)
        begins = np.cumsum(number) - number
        at = np.arange(len(question)) + np.repeat(first - begins, number)
        self._place[candidate_P] = np.arange(len(candidate_P), dtype=np.int32)
        place = self._place[self._answers[side][at]]
        self._place[candidate_P] = -1
        found = place >= 0
        return question[found], place[found].astype(np.int64)


class Shares:
    """What share of a relation's triples has a node at one end."""

    def __init__(self, triples: Triples, num_nodes: int, num_relations: int) -> None:
        self._nodes = num_nodes
        self._total_R = np.bincount(triples.relation_K, minlength=num_relations)
        self._counted = {
            side: np.unique(triples.relation_K * num_nodes + triples.ends(side), return_counts=True)
            for side in SIDES
        }

    def of(self, relation: Ints, node: Ints, side: Side) -> npt.NDArray[np.float64]:
        """The share of every (relation, node), shapes broadcast together."""
        keys, counts = self._counted[side]
        wanted = relation * self._nodes + node
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found: npt.NDArray[np.float64] = np.where(keys[at] == wanted, counts[at], 0)
        return found / np.maximum(self._total_R[relation], 1)
