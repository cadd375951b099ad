"""Batches of a graph: triples in chunks of one relation, and negatives that all of them share.

Shapes: G chunks, C triples of a chunk, P drawn nodes of a type, U distinct nodes of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.reading.numbered import RelationChunks
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
class Asked:
    """The questions of a batch that ask for one side, and whose answers are of one type.

    Attributes:
        chunk_K: the chunks they are of.
        known: places in scores [K, C, P] of known answers among the drawn nodes.
        share_KP, share_KC: of the triples of a chunk's relation, those with a drawn node, or with
            a node of the chunk, at that side; empty where chunks bring no negatives.
    """

    chunk_K: Ints
    known: Ints
    share_KP: npt.NDArray[np.float64]
    share_KC: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A batch.

    Attributes:
        node_U: the nodes of the batch, in order; `head_GC`, `tail_GC` and `at_P` are places in it.
        relation_G: of each chunk.
        weight_GC: of each triple; 0 for what only fills up a chunk.
        pools: by position of a type.
        asked: by side and position of a type, the questions whose answers are of that type.
    """

    node_U: Ints
    relation_G: Ints
    head_GC: Ints
    tail_GC: Ints
    weight_GC: npt.NDArray[np.float32]
    pools: dict[int, Negatives]
    asked: dict[tuple[Side, int], Asked]

    def ends(self, side: Side) -> Ints:
        """The nodes at one side, [G, C], as places among those of the batch."""
        return self.head_GC if side == "head" else self.tail_GC


class Draw:
    """Draws the batches of passes over a graph; the same for the same seed.

    What is no negative of a question are its answers in the triples of the graph, and no others.
    """

    def __init__(self, graph: Graph, config: DrawConfig) -> None:
        self.graph, self.config = graph, config
        self._known = KnownAnswers(graph.triples, len(graph), len(graph.relations))
        self._shares = Shares(graph.triples, len(graph), len(graph.relations))
        self.chunks = RelationChunks(
            graph.triples.relation_K,
            len(graph.relations),
            size=config.chunk_rows,
            power=config.relation_power,
        )
        there_R = np.flatnonzero(self.chunks.count_R)
        used = {graph.type_of(int(r), s) for r in there_R for s in SIDES}
        self._types = sorted(used)
        self._types_of = {side: graph.types_of(side) for side in SIDES}

    def batches(self, *seed: int) -> Iterator[Drawn]:
        """The batches of one pass."""
        random = np.random.default_rng(seed)
        rows_GC, valid_GC = self.chunks.draw(random)
        for first in range(0, len(rows_GC), self.config.chunks):
            chosen = slice(first, first + self.config.chunks)
            yield self.batch(rows_GC[chosen], valid_GC[chosen], random)

    def batch(
        self, rows_GC: Ints, valid_GC: npt.NDArray[np.bool_], random: np.random.Generator
    ) -> Drawn:
        """A batch of triples whose rows are given.

        Args:
            rows_GC: each chunk of one relation.
            valid_GC: which of them count.
        """
        triples = self.graph.triples
        relation_G = triples.relation_K[rows_GC[:, 0]]
        drawn = {t: self._negatives(t, random) for t in self._types}
        parts = [triples.head_K[rows_GC].ravel(), triples.tail_K[rows_GC].ravel(), *drawn.values()]
        node_U, at = np.unique(np.concatenate(parts), return_inverse=True)
        head, tail, *pools = np.split(at, np.cumsum([len(p) for p in parts])[:-1])
        return Drawn(
            node_U=node_U,
            relation_G=relation_G,
            head_GC=head.reshape(rows_GC.shape),
            tail_GC=tail.reshape(rows_GC.shape),
            weight_GC=triples.weight_K[rows_GC] * valid_GC,
            pools={
                t: Negatives(at_P=at_P, node_P=nodes, share=len(nodes) / len(self.graph.of_type[t]))
                for (t, nodes), at_P in zip(drawn.items(), pools, strict=True)
            },
            asked={
                (side, int(t)): self._asked(side, np.flatnonzero(types_G == t), rows_GC, drawn[t])
                for side in SIDES
                for types_G in (self._types_of[side][relation_G],)
                for t in np.unique(types_G)
            },
        )

    def _asked(self, side: Side, chunk_K: Ints, rows_GC: Ints, node_P: Ints) -> Asked:
        """What is known about the questions of some chunks."""
        triples = self.graph.triples
        rows_KC = rows_GC[chunk_K]
        relation_K1 = triples.relation_K[rows_KC[:, :1]]
        given_KC = triples.ends("head" if side == "tail" else "tail")[rows_KC]
        relation_KC = np.broadcast_to(relation_K1, given_KC.shape)
        question, place = self._known.among(given_KC.ravel(), relation_KC.ravel(), side, node_P)
        nothing = np.empty((0, 0))
        beside = self.config.in_batch
        return Asked(
            chunk_K=chunk_K,
            known=question * len(node_P) + place,
            share_KP=self._shares.of(relation_K1, node_P[None], side) if beside else nothing,
            share_KC=self._shares.of(relation_K1, triples.ends(side)[rows_KC], side)
            if beside
            else nothing,
        )

    def _negatives(self, of_type: int, random: np.random.Generator) -> Ints:
        """Distinct nodes of a type, in order."""
        nodes = self.graph.of_type[of_type]
        if not self.config.negatives or self.config.negatives >= len(nodes):
            return nodes
        return nodes[np.unique(random.integers(len(nodes), size=self.config.negatives))]
