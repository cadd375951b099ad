"""A graph whose nodes are numbers, and which of its edges a pass draws: chunks of one relation.

Shapes: N nodes, K edges, R relations, G chunks, C edges of a chunk.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.hashing import key_of

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberedGraph:
    """The graph of a day with nodes as numbers: ordered by type, then by id.

    Attributes:
        id_N: of each node.
        type_N: positions in `NODE_TYPES`.
        relations: (head type, relation, tail type), ordered.
        head_K, relation_K, tail_K: edges.
        weight_K: log(1 + count).
        last_K: the day each happened last, since 1970-01-01.
        left_out: nodes with fewer edges than asked for, which are not in it.
    """

    id_N: npt.NDArray[np.object_]
    type_N: npt.NDArray[np.int8]
    relations: tuple[tuple[str, str, str], ...]
    head_K: npt.NDArray[np.int64]
    relation_K: npt.NDArray[np.int64]
    tail_K: npt.NDArray[np.int64]
    weight_K: npt.NDArray[np.float32]
    last_K: npt.NDArray[np.int64]
    left_out: int

    def keys(self) -> Ints:
        """The hashed id of each node, [N]; nodes of two types may share one."""
        return key_of(self.id_N.tolist())


class RelationChunks:
    """The chunks of passes over edges: rare relations are drawn more often than they occur.

    Args:
        relation_K: of each edge, in 0 .. `relations` - 1.
        size: edges of a chunk.
        power: a relation is drawn in proportion to its edges to this power; 1 takes every edge
            once a pass.
    """

    def __init__(self, relation_K: Ints, relations: int, *, size: int, power: float) -> None:
        self._size, self._power = size, power
        self._order_K = np.argsort(relation_K, kind="stable")
        self.count_R = np.bincount(relation_K, minlength=relations)
        self._first_R = np.cumsum(self.count_R) - self.count_R

    def per_pass(self) -> Ints:
        """How many edges of each relation a pass draws; together as many as there are."""
        total = int(self.count_R.sum())
        weight_R = self.count_R.astype(np.float64) ** self._power
        weight_R[self.count_R == 0] = 0.0
        wanted_R = total * weight_R / max(weight_R.sum(), 1.0)
        drawn_R: Ints = np.floor(wanted_R).astype(np.int64)
        missing = total - int(drawn_R.sum())
        drawn_R[np.argsort(drawn_R - wanted_R, kind="stable")[:missing]] += 1
        return drawn_R

    def draw(self, random: np.random.Generator) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Rows of edges [G, C] of a pass, in random order, and which of them count.

        A chunk that is not full is filled with an edge of its relation, which does not count.
        """
        rows, valid = [np.empty((0, self._size), np.int64)], [np.empty((0, self._size), bool)]
        drawn_R = self.per_pass()
        for relation in np.flatnonzero(drawn_R):
            drawn = self._rows_of(int(relation), int(drawn_R[relation]), random)
            filled = -len(drawn) % self._size
            whole = np.concatenate([drawn, np.repeat(drawn[:1], filled)])
            counts = np.arange(len(whole)) < len(drawn)
            rows.append(whole.reshape(-1, self._size))
            valid.append(counts.reshape(-1, self._size))
        order = random.permutation(sum(map(len, rows)))
        return np.concatenate(rows)[order], np.concatenate(valid)[order]

    def _rows_of(self, relation: int, drawn: int, random: np.random.Generator) -> Ints:
        """Edges of a relation, each as often as any other, give or take one."""
        first, count = int(self._first_R[relation]), int(self.count_R[relation])
        rounds = [random.permutation(count) for _ in range(-(-drawn // count))]
        return self._order_K[first + np.concatenate(rounds)[:drawn]]
