"""What the graph model is trained for, day after day: nodes come and go, relations stay.

Shapes: N nodes, K edges of a batch, G chunks of one relation, C edges of a chunk, T node types.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from feature_store.contracts.base import Entity
from feature_store.contracts.edges import NODE_TYPES
from feature_store.reading.numbered import NumberedGraph
from models.protocol import Batch, Metric, Objective, RowWise
from models.training.checkpoint import Tensors
from models.training.distributed import sum_over_ranks, world
from models.training.pair_metrics import PairMetrics
from models.transra.config import GraphConfig
from models.transra.draw import Draw
from models.transra.graph import Graph, Ints, Relation, Triples, make_graph
from models.transra.model import GraphModel
from models.transra.warm import WarmStart, warm_start

TASK = "link"
_TABLE, _SUMS = "model.table.vector_ND", "model.table.squares_N"
# Weights that have a row per node.
_BY_NODE = {"key_N", "model.type_N", _TABLE, _SUMS, "model.before_ND", "model.known_before_N"}
# A node's number among those drawn; below it seeds are distinct.
_SEEDS = 2**31


class GraphObjective(Objective):
    """A graph model whose nodes are those of the last day that it met.

    A node is its type and its hashed id. The rows of its table, and what Adagrad has summed of
    them, are weights like any others; a snapshot says how many there are.

    Source: `GraphModel`.
    Deviations: none of its own.
    """

    key_N: Tensor

    def __init__(self, relations: Sequence[Relation], config: GraphConfig) -> None:
        super().__init__()
        self.config, self.relations = config, tuple(relations)
        nothing = Triples.of(*(np.empty(0) for _ in range(3)))
        self.model = GraphModel(self._graph(np.empty(0, np.int8), nothing), config)
        self.register_buffer("key_N", torch.zeros(0, dtype=torch.int64))
        n3 = ("n3",) if config.loss.n3 else ()
        self.tasks, self.losses = (TASK,), ("total", "fit", "anchor", *n3)
        # The scale is one of the softmax.
        self.every_parameter_learns = config.loss.name == "softmax"
        self._day: _Day | None = None

    def meet(self, graph: NumberedGraph) -> None:
        """Rows for the nodes of a day: kept, new beside their neighbours, or gone."""
        code = {(r.head, r.name, r.tail): n for n, r in enumerate(self.relations)}
        names = [(h, f"{h}_{r}_{t}", t) for h, r, t in graph.relations]
        relation_K = np.array([code.get(name, -1) for name in names], np.int64)[graph.relation_K]
        known_K = relation_K >= 0
        triples = Triples.of(
            graph.head_K[known_K],
            relation_K[known_K],
            graph.tail_K[known_K],
            graph.weight_K[known_K],
        )
        today = self._graph(graph.type_N, triples)
        key_N = torch.from_numpy(graph.keys())
        was_N = self._rows(torch.from_numpy(graph.type_N.astype(np.int64)), key_N).numpy()
        fresh, before = GraphModel(today, self.config), self.model
        started = None
        if len(self.key_N):
            old = self._graph(before.type_N.numpy().astype(np.int8), triples.take(_NONE))
            started = warm_start(fresh, today, before, old, was_N)
        self.model, self.key_N = fresh, key_N
        self._day = _Day(graph, today, known_K, was_N >= 0, started, self.config)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This rank's part of each loss."""
        day, size = self._met(), self.config.draw.chunk_rows
        rows_GC = day.place_K[batch["edge"].cpu().numpy()].reshape(-1, size)
        valid_GC = batch["valid"].cpu().numpy().reshape(-1, size)
        rank, _ = world()
        random = np.random.default_rng((int(torch.randint(_SEEDS, ())), rank))
        if not len(rows_GC):
            sum_over_ranks(self._nothing().detach())
            return {"total": self._nothing()}
        drawn = day.draw.batch(rows_GC, valid_GC, random)
        table_ND = self.model.table.vector_ND
        found_UD = nn.functional.embedding(self.model.tensor(drawn.node_U), table_ND, sparse=True)
        weight = self.model.tensor(drawn.weight_GC).sum()
        share = weight / sum_over_ranks(weight.detach().clone()).clamp(min=1e-9)
        return {name: loss * share for name, loss in self.model(drawn, found_UD).items()}

    def tables(self) -> Mapping[str, RowWise]:
        """The vectors of nodes."""
        rate, most = self.config.table_learning_rate, self.config.max_norm
        return {_TABLE: RowWise(learning_rate=rate, epsilon=1e-10, max_norm=most, sums=_SUMS)}

    def predict(self, batch: Batch) -> Tensor:
        """Logits [2 K, 1]: of every edge, then of every edge with a tail drawn uniformly."""
        head_K, relation_K, tail_K, drawn_K = self._asked(batch)
        scores = torch.zeros(2, len(head_K), device=self.key_N.device)
        for relation in torch.unique(relation_K):
            mine = (relation_K == relation).nonzero()[:, 0]
            head_1CD = self.model.vectors(head_K[mine])[None]
            for to, end_K in enumerate((tail_K, drawn_K)):
                end_1CD = self.model.vectors(end_K[mine])[None]
                found_1C = self.model.score.triples(head_1CD, relation[None], end_1CD)
                scores[to, mine] = found_1C[0]
        return (scores.flatten() * self.model.log_scale.exp())[:, None]

    def targets(self, batch: Batch) -> Tensor:
        """Ones, then zeros [2 K, 1]; NaN where a node is new, so that nothing is known of it."""
        head_K, _, tail_K, drawn_K = self._asked(batch)
        old_N = self.model.tensor(self._met().old_N)
        ones_K = torch.ones(len(head_K), device=self.key_N.device)
        right_K = ones_K.masked_fill(~(old_N[head_K] & old_N[tail_K]), torch.nan)
        wrong_K = (0 * ones_K).masked_fill(~(old_N[head_K] & old_N[drawn_K]), torch.nan)
        return torch.cat([right_K, wrong_K])[:, None]

    def metrics(self) -> dict[str, Metric]:
        """How well what users did is told from nodes drawn uniformly."""
        return {TASK: PairMetrics(order=True)}

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UD of nodes, of norm 1; one that has no row is the mean of its type."""
        return self.vectors(entity, batch[f"key:{entity}"])

    def vectors(self, of_type: str, key_U: Tensor) -> Tensor:
        """The vector_UD of nodes of a type, of norm 1; without a row, the mean of the type."""
        number = NODE_TYPES.index(of_type)
        row_U = self._rows(torch.full_like(key_U, number), key_U)
        mine = (self.model.type_N == number).nonzero()[:, 0]
        width = self.config.embedding_dim
        mean_D = self.model.vectors(mine).mean(0) if len(mine) else key_U.new_ones(width).float()
        found_UD = mean_D.repeat(len(key_U), 1)
        known_U = row_U >= 0
        found_UD[known_U] = self.model.vectors(row_U[known_U])
        return nn.functional.normalize(found_UD, dim=1)

    def numbers(self) -> dict[str, float]:
        """What the graph of the day is, and what of it is new."""
        return self._day.numbers() if self._day else {}

    def _rows(self, type_U: Tensor, key_U: Tensor) -> Tensor:
        """The row of each node, [U]; -1 where it has none."""
        row_U = torch.full_like(key_U, -1)
        for number in range(len(NODE_TYPES)):
            mine = (self.model.type_N == number).nonzero()[:, 0]
            asked = (type_U == number).nonzero()[:, 0]
            if len(mine) and len(asked):
                ascending, order = self.key_N[mine].sort()
                at = torch.searchsorted(ascending, key_U[asked]).clamp(max=len(mine) - 1)
                hit = ascending[at] == key_U[asked]
                row_U[asked] = torch.where(hit, mine[order[at]], -1)
        return row_U

    def _asked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads, relations and tails of scored edges, and the tails they are compared with."""
        day, model = self._met(), self.model
        some = day.graph.triples.take(day.place_K[batch["edge"].cpu().numpy()])
        share_K = batch["negative"].cpu().numpy()
        drawn_K = np.empty(len(some), np.int64)
        tail_R = day.graph.types_of("tail")
        for of_type in np.unique(tail_R[some.relation_K]):
            mine, nodes = tail_R[some.relation_K] == of_type, day.graph.of_type[int(of_type)]
            drawn_K[mine] = nodes[(share_K[mine] * len(nodes)).astype(np.int64)]
        found = (some.head_K, some.relation_K, some.tail_K, drawn_K)
        head_K, relation_K, tail_K, other_K = (model.tensor(x) for x in found)
        return head_K, relation_K, tail_K, other_K

    def _met(self) -> "_Day":
        if self._day is None:
            raise ValueError("expected a graph that was met, found none")
        return self._day

    def _nothing(self) -> Tensor:
        """0, from every parameter but the table."""
        dense = [p for n, p in self.named_parameters() if n != _TABLE and p.requires_grad]
        return torch.stack([p.sum() * 0 for p in dense]).sum()

    def _graph(self, type_N: npt.NDArray[np.int8], triples: Triples) -> Graph:
        return make_graph(NODE_TYPES, type_N, self.relations, triples)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Make room for as many nodes as the weights have."""
        nodes = len(state_dict[f"{prefix}key_N"])
        if nodes != len(self.key_N):
            self.key_N = self.key_N.new_zeros(nodes)
            self.model.resize(nodes)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def without(weights: Mapping[str, Tensor], of_type: str, key_M: Ints) -> Tensors | None:
    """The weights of an objective without the rows of some nodes; None where it has none of them.

    Args:
        key_M: hashed ids of nodes of the type.
    """
    mine_N = weights["model.type_N"] == NODE_TYPES.index(of_type)
    gone_N = mine_N & torch.isin(weights["key_N"], torch.from_numpy(key_M))
    if not gone_N.any():
        return None
    return {n: x[~gone_N] if n in _BY_NODE else x for n, x in weights.items()}


class _Day:
    """The graph of a day as the model sees it.

    Attributes:
        place_K: of each edge of the day among the triples of `graph`.
        old_N: nodes that the model knew before.
    """

    def __init__(
        self,
        read: NumberedGraph,
        graph: Graph,
        known_K: npt.NDArray[np.bool_],
        old_N: npt.NDArray[np.bool_],
        started: WarmStart | None,
        config: GraphConfig,
    ) -> None:
        self.graph, self.old_N, self._read, self._started = graph, old_N, read, started
        self.place_K: Ints = np.cumsum(known_K) - 1
        self._unknown = int((~known_K).sum())
        self.draw = Draw(graph, config.draw)

    def numbers(self) -> dict[str, float]:
        """Counts, for a day's metrics."""
        used_R = np.bincount(self.graph.triples.relation_K, minlength=len(self.graph.relations))
        found = {
            "graph_nodes": len(self.graph),
            "graph_edges": len(self.graph.triples),
            "graph_relations": int((used_R > 0).sum()),
            "graph_nodes_left_out": self._read.left_out,
            "graph_edges_of_unknown_relations": self._unknown,
            "graph_nodes_new": int((~self.old_N).sum()),
        }
        if self._started:
            found["graph_nodes_beside_neighbours"] = self._started.beside_neighbours
        return {name: float(value) for name, value in found.items()}


_NONE = np.empty(0, np.int64)
