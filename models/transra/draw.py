"""Batches of a graph: triples in chunks of one relation, and negatives that all of them share.

Shapes: G chunks, C triples of a chunk, P drawn nodes of a type, U distinct nodes of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.transra.config import DrawConfig
from models.transra.graph import SIDES, Graph, Ints, KnownAnswers, Shares, Side

Pairs = tuple[Ints, Ints]


@dataclass(frozen=True, kw_only=True, slots=True)
class Negatives:
    """The nodes of one type that were drawn.

    Attributes:
        at_P: their places among the nodes of the batch.
        node_P: their numbers; distinct, and in order.
        share: what part of the nodes of the type they are.
    """

    at_P: Ints
    node_P: Ints
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A batch.

    Attributes:
        node_U: the nodes of the batch, in order; `head_GC`, `tail_GC` and `at_P` are places in it.
        relation_G: of each chunk.
        weight_GC: of each triple; 0 for what only fills up a chunk.
        pools: by position of a type.
    """

    node_U: Ints
    relation_G: Ints
    head_GC: Ints
    tail_GC: Ints
    weight_GC: npt.NDArray[np.float32]
    pools: dict[int, Negatives]

    def ends(self, side: Side) -> Ints:
        """The nodes at one side, [G, C], as places among those of the batch."""
        return self.head_GC if side == "head" else self.tail_GC


class Draw:
    """Draws the batches of passes over a graph; the same for the same seed.

    Attributes:
        known: what is no negative: the triples of the graph, and none that it does not have.
        shares: how often a node is at an end of a relation.
    """

    def __init__(self, graph: Graph, config: DrawConfig) -> None:
        self.graph, self.config = graph, config
        self.known = KnownAnswers(graph.triples, len(graph), len(graph.relations))
        self.shares = Shares(graph.triples, len(graph), len(graph.relations))
        relation_K = graph.triples.relation_K
        self._order_K = np.argsort(relation_K, kind="stable")
        self._count_R = np.bincount(relation_K, minlength=len(graph.relations))
        self._first_R = np.cumsum(self._count_R) - self._count_R
        used = {graph.type_of(int(r), s) for r in np.flatnonzero(self._count_R) for s in SIDES}
        self._types = sorted(used)

    def per_pass(self) -> Ints:
        """How many triples of each relation a pass draws; together as many as there are."""
        weight_R = self._count_R.astype(np.float64) ** self.config.relation_power
        weight_R[self._count_R == 0] = 0.0
        wanted_R = len(self.graph.triples) * weight_R / max(weight_R.sum(), 1.0)
        drawn_R: Ints = np.floor(wanted_R).astype(np.int64)
        missing = len(self.graph.triples) - int(drawn_R.sum())
        drawn_R[np.argsort(drawn_R - wanted_R, kind="stable")[:missing]] += 1
        return drawn_R

    def batches(self, *seed: int) -> Iterator[Drawn]:
        """The batches of one pass."""
        random = np.random.default_rng(seed)
        rows_GC, valid_GC = self._chunks(random)
        for first in range(0, len(rows_GC), self.config.chunks):
            chosen = slice(first, first + self.config.chunks)
            yield self._batch(rows_GC[chosen], valid_GC[chosen], random)

    def _chunks(self, random: np.random.Generator) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Rows of triples [G, C] of a pass, in random order, and which of them count."""
        size = self.config.chunk_rows
        rows, valid = [], []
        for relation in np.flatnonzero(self.per_pass()):
            drawn = self._rows_of(int(relation), random)
            filled = -len(drawn) % size
            rows.append(np.concatenate([drawn, np.repeat(drawn[:1], filled)]).reshape(-1, size))
            counts = np.ones(rows[-1].size, bool)
            counts[len(drawn) :] = False
            valid.append(counts.reshape(-1, size))
        if not rows:
            return np.empty((0, size), np.int64), np.empty((0, size), bool)
        order = random.permutation(sum(map(len, rows)))
        return np.concatenate(rows)[order], np.concatenate(valid)[order]

    def _rows_of(self, relation: int, random: np.random.Generator) -> Ints:
        """Triples of a relation, each as often as any other, give or take one."""
        first, count = int(self._first_R[relation]), int(self._count_R[relation])
        drawn = int(self.per_pass()[relation])
        rounds = [random.permutation(count) for _ in range(-(-drawn // count))]
        return self._order_K[first + np.concatenate(rounds)[:drawn]]

    def _batch(
        self, rows_GC: Ints, valid_GC: npt.NDArray[np.bool_], random: np.random.Generator
    ) -> Drawn:
        triples = self.graph.triples
        drawn = {t: self._negatives(t, random) for t in self._types}
        parts = [triples.head_K[rows_GC].ravel(), triples.tail_K[rows_GC].ravel(), *drawn.values()]
        node_U, at = np.unique(np.concatenate(parts), return_inverse=True)
        head, tail, *pools = np.split(at, np.cumsum([len(p) for p in parts])[:-1])
        return Drawn(
            node_U=node_U,
            relation_G=triples.relation_K[rows_GC[:, 0]],
            head_GC=head.reshape(rows_GC.shape),
            tail_GC=tail.reshape(rows_GC.shape),
            weight_GC=triples.weight_K[rows_GC] * valid_GC,
            pools={
                t: Negatives(at_P=at_P, node_P=nodes, share=len(nodes) / len(self.graph.of_type[t]))
                for (t, nodes), at_P in zip(drawn.items(), pools, strict=True)
            },
        )

    def _negatives(self, of_type: int, random: np.random.Generator) -> Ints:
        """Distinct nodes of a type, in order."""
        nodes = self.graph.of_type[of_type]
        if not self.config.negatives or self.config.negatives >= len(nodes):
            return nodes
        return nodes[np.unique(random.integers(len(nodes), size=self.config.negatives))]
