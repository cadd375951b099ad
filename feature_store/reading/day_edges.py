"""A day of edges: the graph as of its end, drawn in passes to learn from, and what the day added.

What is trained on has, of every drawn edge [K], in chunks of one relation: `edge` (its row in the
graph), `valid` (0 where it only fills up a chunk). What is scored has, of every edge of a user
since the last day that was learned [K]: `edge`, `pair:user`, and `negative` (a number in [0, 1) by
which a node is drawn to compare with). Both have `key:user` and `key:pin`, the hashed ids of the
users that act and of the Pins that are acted on.

The graph of the day is held in memory, and read when it is first asked for.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import ENTITIES, Entity, days_between
from feature_store.contracts.edges import NODE_TYPES, EdgeInputs
from feature_store.lake.lake import Lake
from feature_store.reading.entities import Arrays, Lookup, Rows
from feature_store.reading.examples import Order
from feature_store.reading.graph import read_graph
from feature_store.reading.numbered import NumberedGraph, RelationChunks

_EPOCH = "1970-01-01"


class NodeReader:
    """The nodes of a type of a graph; one of too few edges is not known."""

    embeds_unknown = False

    def __init__(self, day: "DayEdges", of_type: str) -> None:
        self._day, self._type = day, of_type

    @cached_property
    def _mine(self) -> npt.NDArray[np.bool_]:
        mine: npt.NDArray[np.bool_] = self._day.graph.type_N == NODE_TYPES.index(self._type)
        return mine

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self._day.keys[self._mine].view(np.uint64))

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """The id of each row."""
        return self._day.graph.id_N[self._mine]

    def __len__(self) -> int:
        return len(self._lookup)

    def rows_of(self, hashes: npt.NDArray[np.uint64], ds: str = "") -> Rows:  # noqa: ARG002
        """The row of each hashed id."""
        return self._lookup.rows_of(hashes)

    def take(self, rows: Rows) -> Arrays:
        """The keys of chosen rows."""
        return {f"key:{self._type}": self._day.keys[self._mine][rows]}


class DayEdges:
    """The graph of a day as batches of edges.

    Args:
        since: the last day that was learned; edges of later days are what is scored.
        begins: whether a training from scratch reads it.
    """

    def __init__(
        self, lake: Lake, ds: str, inputs: EdgeInputs, *, since: str, begins: bool
    ) -> None:
        self.ds, self._lake, self._inputs = ds, lake, inputs
        self._since = len(days_between(_EPOCH, since)) - 1
        self._passes = inputs.first_passes if begins else inputs.passes
        self.nodes = {name: NodeReader(self, name) for name in NODE_TYPES}
        self.entities: dict[Entity, NodeReader] = {e: self.nodes[e] for e in ENTITIES}

    @cached_property
    def graph(self) -> NumberedGraph:
        """The graph; relations that nobody declared are left out of what is drawn."""
        return read_graph(self._lake, self.ds, least_degree=self._inputs.least_degree)

    @cached_property
    def keys(self) -> Rows:
        """The hashed id of each node, [N]."""
        return self.graph.keys()

    @cached_property
    def _known(self) -> npt.NDArray[np.int64]:
        """Rows of edges whose relation is known."""
        known_R = np.array([kind in self._inputs.kinds for kind in self.graph.relations], bool)
        return np.flatnonzero(known_R[self.graph.relation_K]) if len(known_R) else _NONE

    def rows(self) -> int:
        """Edges that a training of the day draws."""
        return self._passes * len(self._known)

    def batches(self, order: Order) -> Iterator[Arrays]:
        """Passes over the graph, or, without a seed, what users did since."""
        if order.seed is None:
            yield from self._done_since(order)
            return
        inputs, known_K = self._inputs, self._known
        chunks = RelationChunks(
            self.graph.relation_K[known_K],
            len(self.graph.relations),
            size=inputs.chunk_rows,
            power=inputs.power,
        )
        rank, ranks = order.shard
        step = max(order.batch_rows // inputs.chunk_rows, 1)
        for number in range(self._passes):
            rows_GC, valid_GC = chunks.draw(np.random.default_rng((order.seed, number)))
            rows_GC, valid_GC = rows_GC[rank::ranks], valid_GC[rank::ranks]
            for first in range(0, len(rows_GC), step):
                some = slice(first, first + step)
                yield self._drawn(known_K[rows_GC[some].ravel()], valid_GC[some].ravel())

    def empty(self) -> Arrays:
        """A batch of no rows."""
        return self._drawn(_NONE, np.empty(0, bool))

    def middle_minute(self) -> int:
        """0: edges know no minutes, and their days are learned whole."""
        return 0

    def _drawn(self, edge_K: Rows, valid_K: npt.NDArray[np.bool_]) -> Arrays:
        return {"edge": edge_K, "valid": valid_K, **self._keys(edge_K[valid_K])}

    def _done_since(self, order: Order) -> Iterator[Arrays]:
        graph, (rank, ranks) = self.graph, order.shard
        user = NODE_TYPES.index("user")
        mine_K = (graph.type_N[graph.head_K] == user) & (graph.last_K > self._since)
        edges = np.intersect1d(np.flatnonzero(mine_K), self._known)
        random = np.random.default_rng(0).random(len(edges))
        # All edges of a user are of one rank: whoever measures counts users, not edges.
        of_rank = self.keys[graph.head_K[edges]].view(np.uint64) % np.uint64(ranks) == rank
        edges, random = edges[of_rank], random[of_rank]
        for first in range(0, len(edges), order.batch_rows):
            some = slice(first, first + order.batch_rows)
            edge_K = edges[some]
            user_K = self.keys[graph.head_K[edge_K]]
            own = {"edge": edge_K, "pair:user": user_K, "negative": random[some]}
            yield own | self._keys(edge_K)

    def _keys(self, edge_K: Rows) -> Arrays:
        """Hashed ids of the users that act, and of the Pins that are acted on."""
        if not len(edge_K):
            return dict.fromkeys(("key:user", "key:pin"), _NONE)
        found = {}
        for name, ends in (("user", self.graph.head_K), ("pin", self.graph.tail_K)):
            node_K = ends[edge_K]
            mine = self.graph.type_N[node_K] == NODE_TYPES.index(name)
            found[f"key:{name}"] = self.keys[node_K[mine]]
        return found


_NONE = np.empty(0, np.int64)
