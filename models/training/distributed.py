"""Several ranks as one: sums and gathers over torch.distributed, or nothing on a single process.

Shapes: B rows of this rank, N rows of all ranks, any trailing dimensions.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of ranks)."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of x over all ranks, without gradient."""
    x = x.detach().clone()
    if world()[1] > 1:
        dist.all_reduce(x)
    return x


def gather(x_B: Tensor) -> Tensor:
    """The rows of all ranks in rank order, x_N; without gradient. Ranks may differ in B."""
    if world()[1] == 1:
        return x_B.detach()
    return torch.cat(_gather_ragged(x_B.detach()))


def gather_with_gradient(x_B: Tensor) -> Tensor:
    """The rows of all ranks in rank order, x_N; the gradient of x_B sums over all ranks' uses."""
    if world()[1] == 1:
        return x_B
    gathered: Tensor = _Gather.apply(x_B)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_B: Tensor) -> Tensor:
        parts = _gather_ragged(x_B)
        rank = world()[0]
        start = sum(len(p) for p in parts[:rank])
        ctx.rows = slice(start, start + len(x_B))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Sum then slice: a reduce-scatter, which gloo lacks.
        grad_N = grads[0].contiguous()
        dist.all_reduce(grad_N)
        return grad_N[ctx.rows]


def _gather_ragged(x_B: Tensor) -> list[Tensor]:
    ranks = world()[1]
    sizes = [torch.zeros(1, dtype=torch.int64, device=x_B.device) for _ in range(ranks)]
    dist.all_gather(sizes, torch.tensor([len(x_B)], device=x_B.device))
    counts = [int(size) for size in sizes]
    padded = x_B.new_zeros((max(counts), *x_B.shape[1:]))
    padded[: len(x_B)] = x_B
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def for_backward(total: Tensor) -> Tensor:
    """This rank's part of a loss, scaled so that DDP's mean of gradients is their sum."""
    return total * world()[1]
