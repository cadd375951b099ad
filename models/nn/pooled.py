"""Log-sum-exp of logits against a pool, in memory that does not grow with rows x pool.

Logits are computed block by block and thrown away; the backward pass computes them again. What
remains is what goes in and comes out, and one block.

Shapes: R queries, P pool, D width; r, p those of a block.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_BLOCK_ROWS = 512
_BLOCK_POOL = 2048


def pooled_logsumexp(
    query_RD: Tensor, item_PD: Tensor, minus_P: Tensor, ids: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """The log sum_p exp(q_r . i_p - minus_p) of each query, over entries that are not masked.

    Args:
        minus_P: subtracted from each entry's logits; no gradient reaches it.
        ids: item_R and user_R of the queries, item_P and user_P of the pool: an entry is masked
            where its item or its user is the query's.

    Returns:
        lse_R, float32; -inf where everything is masked.
    """
    found: Tensor = _Pooled.apply(query_RD, item_PD, minus_P, *ids)  # type: ignore[no-untyped-call]
    return found


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_RD: Tensor, item_PD: Tensor, minus_P: Tensor, *ids: Tensor
    ) -> Tensor:
        lse_R = query_RD.new_full((len(query_RD),), -math.inf)
        for rows, pool in _blocks(len(query_RD), len(item_PD)):
            logits_rp = _logits(query_RD, item_PD, minus_P, ids, rows, pool)
            lse_R[rows] = torch.logaddexp(lse_R[rows], torch.logsumexp(logits_rp, dim=1))
        ctx.save_for_backward(query_RD, item_PD, minus_P, lse_R, *ids)
        return lse_R

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query_RD, item_PD, minus_P, lse_R, *ids = ctx.saved_tensors
        # A row of nothing but masked entries has no share of anything.
        safe_R = lse_R.masked_fill(lse_R == -math.inf, 0.0)
        query_grad, item_grad = torch.zeros_like(query_RD), torch.zeros_like(item_PD)
        for rows, pool in _blocks(len(query_RD), len(item_PD)):
            share_rp = _logits(query_RD, item_PD, minus_P, tuple(ids), rows, pool)
            share_rp.sub_(safe_R[rows, None]).exp_().mul_(grads[0][rows, None])
            query_grad[rows].addmm_(share_rp, item_PD[pool])
            item_grad[pool].addmm_(share_rp.T, query_RD[rows])
        return query_grad, item_grad, None, *([None] * len(ids))


def _blocks(rows: int, pool: int) -> Iterator[tuple[slice, slice]]:
    for first in range(0, rows, _BLOCK_ROWS):
        for start in range(0, pool, _BLOCK_POOL):
            yield slice(first, first + _BLOCK_ROWS), slice(start, start + _BLOCK_POOL)


def _logits(
    query_RD: Tensor,
    item_PD: Tensor,
    minus_P: Tensor,
    ids: tuple[Tensor, ...],
    rows: slice,
    pool: slice,
) -> Tensor:
    item_R, user_R, item_P, user_P = ids
    logits_rp = torch.addmm(-minus_P[None, pool], query_RD[rows], item_PD[pool].T)
    masked_rp = item_R[rows, None] == item_P[None, pool]
    masked_rp |= user_R[rows, None] == user_P[None, pool]
    return logits_rp.masked_fill_(masked_rp, -math.inf)
