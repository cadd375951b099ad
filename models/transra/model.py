"""The graph model: vectors of nodes, a score, and what both are trained for.

Shapes: N nodes, U nodes of a batch, G chunks of one relation, C triples of a chunk, K chunks of
questions, P candidates, D width of a node's vector, E width of what is compared.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from feature_store.contracts.errors import InputError
from models.transra.config import GraphConfig
from models.transra.draw import Asked, Drawn
from models.transra.graph import SIDES, Graph, Ints, Side
from models.transra.losses import log_sum_exp, margin_loss, self_adversarial_loss, softmax
from models.transra.scores import as_product, compare_all, score_of
from models.transra.tables import NodeTable


class GraphModel(nn.Module):
    """Nodes, relations, and how well they fit; TransRA with an anchor, its relatives without.

    Args:
        graph: says how many nodes there are, of which type, and the relations.

    Source: TransR (Lin et al. 2015); TransRA as far as its publication says (what is an anchor in
    it is this project's reading); chunks and shared negatives: PyTorch-BigGraph (Lerer et al.
    2019).
    Deviations: the softmax over sampled negatives is corrected for how likely each was drawn.
    """

    before_ND: Tensor
    known_before_N: Tensor

    def __init__(self, graph: Graph, config: GraphConfig) -> None:
        super().__init__()
        self.config = config
        self.table = NodeTable(len(graph), config.embedding_dim)
        names = [r.name for r in graph.relations]
        anchor = -1
        if config.score.anchor == "identity":
            anchor = _anchor(names, config.score.anchor_relation)
        self.score = score_of(config, len(names), anchor)
        log_scale = torch.tensor(math.log(config.loss.scale))
        self.log_scale = nn.Parameter(log_scale, requires_grad=config.loss.trains_scale)
        self.register_buffer("type_N", torch.from_numpy(graph.type_N.astype(np.int64)))
        if config.score.anchor == "prototype":
            shape = (len(graph.types), config.score.prototypes, config.embedding_dim)
            self.prototype_TKD = nn.Parameter(torch.randn(shape) / config.embedding_dim**0.5)
        if config.score.anchor == "snapshot":
            self.register_buffer("before_ND", torch.zeros(len(graph), config.embedding_dim))
            self.register_buffer("known_before_N", torch.zeros(len(graph), dtype=torch.bool))

    type_N: Tensor

    def vectors(self, node: Tensor, found: Tensor | None = None) -> Tensor:
        """The vectors [..., D] of nodes, which is what others see of them.

        Args:
            found: the rows of the table for them, where they were read already.
        """
        found = self.table.vector_ND[node] if found is None else found
        if self.config.score.anchor != "prototype":
            return found
        out = torch.zeros_like(found)
        for of_type, prototype_KD in enumerate(self.prototype_TKD):
            mine = (self.type_N[node] == of_type)[..., None]
            near = (found @ prototype_KD.T / found.shape[-1] ** 0.5).softmax(-1)
            out = out + mine * (found + near @ prototype_KD)
        return out

    @torch.no_grad()
    def everybody(self) -> npt.NDArray[np.float32]:
        """The vectors [N, D] of all nodes."""
        found: npt.NDArray[np.float32] = (
            self.vectors(torch.arange(len(self.table), device=self.table.vector_ND.device))
            .cpu()
            .numpy()
        )
        return found

    def resize(self, nodes: int) -> None:
        """Room for another number of nodes; what was there is gone."""
        self.table.resize(nodes)
        self.type_N = self.type_N.new_zeros(nodes)
        if self.config.score.anchor == "snapshot":
            self.before_ND = self.before_ND.new_zeros(nodes, self.config.embedding_dim)
            self.known_before_N = self.known_before_N.new_zeros(nodes)

    def tensor(self, array: npt.NDArray) -> Tensor:
        """An array where the model is."""
        return torch.from_numpy(array).to(self.table.vector_ND.device)

    def forward(self, drawn: Drawn, found_UD: Tensor) -> dict[str, Tensor]:
        """The losses of a batch: `total`, and what it is the sum of.

        Args:
            found_UD: the rows of the table for `drawn.node_U`.
        """
        vector_UD = self.vectors(self.tensor(drawn.node_U), found_UD)
        weight_GC = self.tensor(drawn.weight_GC)
        by_side = _Questions(self, drawn, vector_UD)
        of_triple_GC = by_side.loss("head") + by_side.loss("tail")
        fit = (of_triple_GC * weight_GC).sum() / weight_GC.sum().clamp(min=1e-9) / 2
        anchor = self.score.penalty() + self._pull(drawn, found_UD)
        total = fit + anchor
        losses = {"fit": fit, "anchor": anchor}
        if self.config.loss.n3:
            losses["n3"] = self.config.loss.n3 * self._n3(drawn, vector_UD, weight_GC)
            total = total + losses["n3"]
        return {"total": total, **losses}

    def _pull(self, drawn: Drawn, found_UD: Tensor) -> Tensor:
        """What the snapshot anchor adds: squared distances to yesterday, by its weight."""
        if self.config.score.anchor != "snapshot":
            return found_UD.new_zeros(())
        node_U = self.tensor(drawn.node_U)
        known_U1 = self.known_before_N[node_U][:, None]
        away_UD = (found_UD - self.before_ND[node_U]) * known_U1
        mean = away_UD.square().sum() / max(len(node_U), 1)
        return self.config.score.anchor_weight * mean

    def _n3(self, drawn: Drawn, vector_UD: Tensor, weight_GC: Tensor) -> Tensor:
        """Mean over triples of the cubed moduli of head, relation and tail.

        Source: Lacroix et al. 2018, equation 5.
        """
        relation = dict(self.score.named_parameters()).get("relation")
        parts = [vector_UD[self.tensor(drawn.ends(side))] for side in SIDES]
        if relation is not None:
            chosen_GCD = relation[self.tensor(drawn.relation_G)][:, None]
            parts.append(chosen_GCD.expand_as(parts[0]))
        cubed = [_squared_moduli(part).pow(1.5).sum(-1) for part in parts]
        summed = (torch.stack(cubed).sum(0) * weight_GC).sum()
        return summed / weight_GC.sum().clamp(min=1e-9) / 3


class _Questions:
    """The questions of one batch, answered side by side."""

    def __init__(self, model: GraphModel, drawn: Drawn, vector_UD: Tensor) -> None:
        self._model, self._drawn, self._vector_UD = model, drawn, vector_UD
        self._relation_G = model.tensor(drawn.relation_G)
        self._end = {
            side: nn.functional.embedding(self._model.tensor(drawn.ends(side)), vector_UD)
            for side in SIDES
        }
        self._hit_GC = model.score.triples(self._end["head"], self._relation_G, self._end["tail"])

    def loss(self, side: Side) -> Tensor:
        """The loss_GC of asking for one side of every triple."""
        other: Side = "head" if side == "tail" else "tail"
        question_GCE = self._model.score.question(self._end[other], self._relation_G, side)
        out = torch.zeros_like(self._hit_GC)
        for (of_side, of_type), asked in self._drawn.asked.items():
            if of_side == side:
                chosen_K = self._model.tensor(asked.chunk_K)
                found = self._of_type(question_GCE[chosen_K], asked, side, of_type)
                out = out.index_copy(0, chosen_K, found)
        return out

    def _of_type(self, question_KCE: Tensor, asked: Asked, side: Side, of_type: int) -> Tensor:
        """The loss_KC of chunks whose candidates are of one type."""
        model, pool = self._model, self._drawn.pools[of_type]
        chosen_K = self._model.tensor(asked.chunk_K)
        hit_KC, relation_K = self._hit_GC[chosen_K], self._relation_G[chosen_K]
        pool_PD = nn.functional.embedding(self._model.tensor(pool.at_P), self._vector_UD)
        candidate = model.score.candidate(pool_PD, relation_K)
        masked = self._model.tensor(asked.known)
        if model.config.loss.name != "softmax":
            return self._ranked(hit_KC, question_KCE, candidate, masked)
        scale = model.log_scale.exp()
        if model.config.draw.in_batch:
            beside_KCE = model.score.candidate(self._end[side][chosen_K], relation_K)
            drawn_KPE = candidate.expand(len(chosen_K), *candidate.shape[-2:])
            return self._corrected(
                hit_KC * scale, question_KCE, (drawn_KPE, beside_KCE), asked, pool.share
            )
        if candidate.dim() == 2:
            question_KCE = question_KCE.flatten(0, 1)
        distance = model.score.distance
        rest = log_sum_exp(question_KCE, candidate, masked, distance=distance, scale=scale)
        return softmax(hit_KC * scale, [rest.view(hit_KC.shape)])

    def _corrected(
        self,
        hit_KC: Tensor,
        question_KCE: Tensor,
        candidates: tuple[Tensor, Tensor],
        asked: Asked,
        drawn_share: float,
    ) -> Tensor:
        """Softmax over drawn nodes and those of the chunk, each by how likely it is a candidate."""
        rows_K1 = (self._drawn.weight_GC[asked.chunk_K] > 0).sum(1, keepdims=True)
        masked = (self._model.tensor(asked.known), self._repeated(asked.chunk_K))
        log_q = [
            self._model.tensor(np.log(drawn_share + (rows_K1 - 1) * share).astype(np.float32))
            for share in (asked.share_KP, asked.share_KC)
        ]
        others = [
            _log_sum_exp_corrected(question_KCE, vectors, places, of_candidate, self._model)
            for vectors, places, of_candidate in zip(candidates, masked, log_q, strict=True)
        ]
        return softmax(hit_KC - log_q[1], others)

    def _repeated(self, chunks_K: Ints) -> Tensor:
        """Flat places in [K, C, C] where a chunk's own nodes are no negatives of a question.

        Those that fill up, and those of a triple with the same head or the same tail: its other end
        is a right answer, or the answer itself.
        """
        drawn = self._drawn
        masked = drawn.weight_GC[chunks_K][:, None, :] <= 0
        for side in SIDES:
            at_KC = drawn.ends(side)[chunks_K]
            masked = masked | (at_KC[:, :, None] == at_KC[:, None, :])
        return self._model.tensor(np.flatnonzero(masked))

    def _ranked(
        self, hit_KC: Tensor, question_KCE: Tensor, candidate: Tensor, masked: Tensor
    ) -> Tensor:
        """Losses that look at every negative's score."""
        model = self._model
        miss_KCP = compare_all(question_KCE, candidate, model.score.distance)
        counts = torch.ones_like(miss_KCP).view(-1).index_fill_(0, masked, 0.0)
        counts_KCP, loss = counts.view(miss_KCP.shape), model.config.loss
        if loss.name == "margin":
            return margin_loss(hit_KC, miss_KCP, counts_KCP, loss.margin)
        return self_adversarial_loss(hit_KC, miss_KCP, counts_KCP, loss.margin, loss.adversarial)


def _log_sum_exp_corrected(
    question: Tensor, candidate: Tensor, masked: Tensor, log_q: Tensor, model: GraphModel
) -> Tensor:
    """Log sum exp(score - log q): the correction is one more element of the product."""
    if model.score.distance is not None:
        question = as_product(question, role="question")
        candidate = as_product(candidate, role="candidate")
    question = nn.functional.pad(question * model.log_scale.exp(), (0, 1), value=1.0)
    candidate = torch.cat([candidate, -log_q[..., None]], dim=-1)
    one = torch.ones((), device=question.device)
    return log_sum_exp(question, candidate, masked, distance=None, scale=one)


def _squared_moduli(vector: Tensor) -> Tensor:
    real, imaginary = vector.chunk(2, dim=-1)
    return real.square() + imaginary.square()


def _anchor(names: list[str], wanted: str) -> int:
    """The position of the anchor relation.

    Raises:
        InputError: the graph does not have it.
    """
    if wanted not in names:
        raise InputError(
            "the anchor relation is not in the graph",
            where="score.anchor_relation",
            expected=" | ".join(names),
            found=wanted,
        )
    return names.index(wanted)
