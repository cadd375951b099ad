"""What makes a triple fit better than its negatives.

Shapes: C questions (any leading dimensions), P candidates, E width of what is compared.
"""

import math
from typing import Any

import torch
from torch import Tensor

from models.transra.config import Distance
from models.transra.graph import Ints
from models.transra.scores import as_product


class _LogSumExp(torch.autograd.Function):
    """log sum exp of a matrix product along its last axis, which keeps one matrix.

    Between the products there are three passes over the matrix; autograd would make ten.
    """

    @staticmethod
    def forward(
        ctx: Any, question: Tensor, candidate: Tensor, masked: Tensor, root: bool
    ) -> Tensor:
        """Args: masked: flat places in the product; root: of minus the product, and minus that."""
        scores = question @ candidate.transpose(-1, -2)
        slope = None
        if root:
            scores = scores.neg_().clamp_(min=_TINY).sqrt_()
            slope = 0.5 / scores
            scores.neg_()
        scores.view(-1).index_fill_(0, masked, -math.inf)
        most = scores.amax(-1, keepdim=True).clamp(min=_LEAST)
        weight = scores.sub_(most).exp_()
        total = weight.sum(-1, keepdim=True)
        if slope is not None:
            weight.mul_(slope)
        ctx.save_for_backward(question, candidate, weight, total)
        return (total.log() + most).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        question, candidate, weight, total = ctx.saved_tensors
        share = torch.where(total > 0, gradient[..., None] / total, torch.zeros_like(total))
        to_candidate = weight.transpose(-1, -2) @ (question * share)
        return (weight @ candidate) * share, to_candidate, None, None


_LEAST = -1e30
_TINY = 1e-12


def log_sum_exp(
    question: Tensor,
    candidate: Tensor,
    masked: Tensor,
    *,
    distance: Distance | None,
    scale: Tensor,
) -> Tensor:
    """Log sum exp(scale * score) of every question [..., C, E] over candidates [..., P, E].

    Args:
        masked: places in the flattened scores [..., C, P] that do not count.
        distance: of the score; None: inner products.
        scale: positive.

    Returns:
        [..., C]; minus infinity where nothing counts.
    """
    if distance == "manhattan":
        scores = -torch.cdist(question, candidate, p=1.0) * scale
        flat = scores.reshape(-1).index_fill(0, masked, -math.inf)
        return flat.view(scores.shape).logsumexp(-1)
    root = distance == "euclidean"
    if distance is not None:
        question = as_product(question, role="question")
        candidate = as_product(candidate, role="candidate")
    question = question * (scale.square() if root else scale)
    found: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
        question, candidate, masked, root
    )
    return found


def flat_places(pairs: tuple[Ints, Ints], candidates: int) -> Tensor:
    """(question, candidate) pairs as places in the flattened matrix."""
    return torch.from_numpy(pairs[0] * candidates + pairs[1])


def softmax(hit_C: Tensor, others: list[Tensor]) -> Tensor:
    """Cross-entropy of the right answer among candidates, from log-sum-exps of the wrong ones."""
    return torch.logsumexp(torch.stack([hit_C, *others]), dim=0) - hit_C


def margin_loss(hit_C: Tensor, miss_CP: Tensor, counts_CP: Tensor, margin: float) -> Tensor:
    """Mean over negatives of max(0, margin - hit + miss).

    Args:
        counts_CP: which negatives count.

    Source: TransE (Bordes et al. 2013), equation 1.
    """
    short_CP = (margin - hit_C[..., None] + miss_CP).clamp(min=0.0) * counts_CP
    return short_CP.sum(-1) / counts_CP.sum(-1).clamp(min=1)


def self_adversarial_loss(
    hit_C: Tensor, miss_CP: Tensor, counts_CP: Tensor, margin: float, temperature: float
) -> Tensor:
    """-log sigmoid(margin + hit) - sum of p log sigmoid(-margin - miss), p = softmax(t * miss).

    Args:
        counts_CP: which negatives count.

    Source: RotatE (Sun et al. 2019), equations 5 and 6.
    """
    weighed_CP = (temperature * miss_CP).masked_fill(~counts_CP.bool(), _LEAST).detach()
    weight_CP = weighed_CP.softmax(-1) * counts_CP
    wrong_C = (weight_CP * torch.nn.functional.logsigmoid(-margin - miss_CP)).sum(-1)
    return -torch.nn.functional.logsigmoid(margin + hit_C) - wrong_C
