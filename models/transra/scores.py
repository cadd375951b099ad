"""How well a triple fits: every score as a comparison of a question with a candidate.

A question is the known node of a triple, its relation, and the side that is asked for. It and the
candidate become vectors whose comparison is the score, so that many candidates are one matrix
product, whichever score it is.

Shapes: G chunks of one relation each, C triples of a chunk, P candidates, D width of a node's
vector, E width of what is compared.
"""

import torch
from torch import Tensor, nn

from models.transra.config import Distance, GraphConfig, ScoreConfig
from models.transra.graph import Side

_TINY = 1e-12


class Score(nn.Module):
    """What all scores share: vectors of questions and candidates, and how they are compared.

    Attributes:
        distance: by which they are compared; None: by their inner product.
        projects: whether a candidate's vector depends on the relation.

    Source: see the classes below.
    Deviations: none of its own.
    """

    distance: Distance | None = None
    projects = False

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """The vector_GCE of the questions that ask for one side."""
        raise NotImplementedError

    def candidate(self, node_PD: Tensor, relation_G: Tensor) -> Tensor:
        """The vector_PE of candidates; vector_GPE where it depends on the relation.

        Args:
            node_PD: or node_GPD, candidates of each chunk.
        """
        del relation_G
        return node_PD

    def penalty(self) -> Tensor:
        """What the score adds to a loss, whatever the batch."""
        return torch.zeros(())

    def triples(self, head_GCD: Tensor, relation_G: Tensor, tail_GCD: Tensor) -> Tensor:
        """The score_GC of triples."""
        question_GCE = self.question(head_GCD, relation_G, "tail")
        return compare_pairs(question_GCE, self.candidate(tail_GCD, relation_G), self.distance)


class TransE(Score):
    """A relation is a translation: -d(h + r, t).

    Source: Bordes et al. 2013, equation 1.
    Deviations: the distance is a choice; squared Euclidean by default.
    """

    def __init__(self, config: GraphConfig, relations: int) -> None:
        super().__init__()
        self.distance = config.score.distance
        self.relation = nn.Parameter(_unit(relations, config.embedding_dim))

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """Moved along the relation for its tail, against it for its head."""
        move_GCD = self.relation[relation_G][:, None]
        return node_GCD + move_GCD if side == "tail" else node_GCD - move_GCD


class TransR(Score):
    """A translation in a space of the relation's own: -d(h M_r + r, t M_r), M_r = I + Delta_r.

    With `anchor = "identity"` one relation has Delta = 0 for good, so that nodes are compared in
    their own space there, and the others are drawn towards it.

    Source: Lin et al. 2015, equations 8 and 9. The identity anchor: this project's reading of
    TransRA, whose definition is not public.
    Deviations: M_r begins as the identity; the norm of projected nodes is bounded only where
    `clamp_projections` says so.
    """

    free_R11: Tensor
    projects = True

    def __init__(self, config: GraphConfig, relations: int, anchor: int = -1) -> None:
        super().__init__()
        self._score: ScoreConfig = config.score
        self.distance = config.score.distance
        width = config.score.relation_dim or config.embedding_dim
        self.relation = nn.Parameter(_unit(relations, width))
        self.delta = nn.Parameter(torch.zeros(relations, config.embedding_dim, width))
        self.register_buffer("identity_DE", torch.eye(config.embedding_dim, width))
        free_R = torch.ones(relations)
        if config.score.anchor == "identity":
            free_R[anchor] = 0.0
        self.register_buffer("free_R11", free_R[:, None, None])

    def matrix(self, relation_G: Tensor) -> Tensor:
        """The matrix_GDE of relations."""
        change_GDE = self.delta[relation_G] * self.free_R11[relation_G]
        identity_DE: Tensor = self.get_buffer("identity_DE")
        return identity_DE + change_GDE

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """Projected, then moved along the relation for its tail, against it for its head."""
        move_GCE = self.relation[relation_G][:, None]
        projected_GCE = self.candidate(node_GCD, relation_G)
        return projected_GCE + move_GCE if side == "tail" else projected_GCE - move_GCE

    def candidate(self, node_PD: Tensor, relation_G: Tensor) -> Tensor:
        """Projected by every relation, [G, P, E]."""
        projected_GPE: Tensor = node_PD @ self.matrix(relation_G)
        if not self._score.clamp_projections:
            return projected_GPE
        norm_GP1: Tensor = projected_GPE.norm(dim=-1, keepdim=True)
        return projected_GPE / norm_GP1.clamp(min=1.0)

    def penalty(self) -> Tensor:
        """The squared norm of what the matrices differ from the identity, by the anchor's weight.

        0 without the identity anchor.
        """
        if self._score.anchor != "identity":
            return self.delta.new_zeros(())
        return self._score.anchor_weight * (self.delta * self.free_R11).square().sum()


class TwHIN(Score):
    """(h + r) . t.

    Source: El-Kishky et al. 2022 (arXiv 2202.05387), equation 1.
    Deviations: none.
    """

    def __init__(self, config: GraphConfig, relations: int) -> None:
        super().__init__()
        self.relation = nn.Parameter(_unit(relations, config.embedding_dim))

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """A last element says what every head gets: r . t."""
        move_GCD = self.relation[relation_G][:, None]
        if side == "tail":
            return nn.functional.pad(node_GCD + move_GCD, (0, 1))
        return torch.cat([node_GCD, (node_GCD * move_GCD).sum(-1, keepdim=True)], dim=-1)

    def candidate(self, node_PD: Tensor, relation_G: Tensor) -> Tensor:
        """The node, and a 1 for what every candidate gets."""
        del relation_G
        return nn.functional.pad(node_PD, (0, 1), value=1.0)


class ComplEx(Score):
    """Re<h, r, conj(t)> of complex vectors, real halves first.

    Source: Trouillon et al. 2016, equation 9.
    Deviations: none.
    """

    def __init__(self, config: GraphConfig, relations: int) -> None:
        super().__init__()
        self.relation = nn.Parameter(_unit(relations, config.embedding_dim))

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """Times the relation for its tail, times its conjugate for its head."""
        real, imaginary = self.relation[relation_G][:, None].chunk(2, dim=-1)
        return _times(node_GCD, real, imaginary if side == "tail" else -imaginary)


class RotatE(Score):
    """A relation turns complex numbers: -d(h o r, t), |r_i| = 1, real halves first.

    Source: Sun et al. 2019, equation 4.
    Deviations: the distance is that of complex vectors (squared, or its root), where the
    publication adds up moduli: it is one matrix product over many candidates.
    """

    def __init__(self, config: GraphConfig, relations: int) -> None:
        super().__init__()
        self.distance = config.score.distance
        angle = (torch.rand(relations, config.embedding_dim // 2) * 2 - 1) * torch.pi
        self.angle = nn.Parameter(angle)

    def question(self, node_GCD: Tensor, relation_G: Tensor, side: Side) -> Tensor:
        """Turned by the relation for its tail, back for its head."""
        angle = self.angle[relation_G][:, None]
        sine = angle.sin() if side == "tail" else -angle.sin()
        return _times(node_GCD, angle.cos(), sine)


def score_of(config: GraphConfig, relations: int, anchor: int = -1) -> Score:
    """The score of a configuration.

    Args:
        relations: how many there are.
        anchor: which of them is the anchor, where there is one.
    """
    name = config.score.name
    if name == "transr":
        return TransR(config, relations, anchor)
    plain = {"transe": TransE, "twhin": TwHIN, "rotate": RotatE, "complex": ComplEx}
    return plain[name](config, relations)


def compare_pairs(question: Tensor, candidate: Tensor, distance: Distance | None) -> Tensor:
    """Scores of questions and candidates of the same shape [..., E], one by one."""
    if distance is None:
        return (question * candidate).sum(-1)
    difference = question - candidate
    if distance == "manhattan":
        return -difference.abs().sum(-1)
    squared = difference.square().sum(-1)
    return -squared if distance == "squared" else -(squared + _TINY).sqrt()


def compare_all(question: Tensor, candidate: Tensor, distance: Distance | None) -> Tensor:
    """Scores [..., C, P] of every question [..., C, E] with every candidate [..., P, E]."""
    if distance is None:
        return question @ candidate.transpose(-1, -2)
    if distance == "manhattan":
        return -torch.cdist(question, candidate, p=1.0)
    negated = as_product(question, role="question") @ as_product(
        candidate, role="candidate"
    ).transpose(-1, -2)
    if distance == "squared":
        return negated
    return -(_TINY - negated.clamp(max=0.0)).sqrt()


def as_product(vector: Tensor, *, role: str) -> Tensor:
    """Vectors whose inner products are negated squared distances: two elements are added."""
    squared = vector.square().sum(-1, keepdim=True)
    one = torch.ones_like(squared)
    if role == "question":
        return torch.cat([2 * vector, -squared, -one], dim=-1)
    return torch.cat([vector, one, squared], dim=-1)


def _times(node: Tensor, real: Tensor, imaginary: Tensor) -> Tensor:
    """The product of complex vectors, real halves first."""
    node_real, node_imaginary = node.chunk(2, dim=-1)
    return torch.cat(
        [
            node_real * real - node_imaginary * imaginary,
            node_real * imaginary + node_imaginary * real,
        ],
        dim=-1,
    )


def _unit(rows: int, width: int) -> Tensor:
    """Vectors as TransE begins with: of norm 1, in every direction."""
    return nn.functional.normalize(torch.randn(rows, width), dim=-1)
