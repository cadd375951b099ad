"""Row-wise Adagrad: a number of state per row, and no work for rows that a step did not touch.

Shapes: R rows of a table, N rows that were touched, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.protocol import RowWise
from models.training.checkpoint import Tensors
from models.training.distributed import gather, world

_SUM, _READ = "row_sum", "row_read"
_TINY = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class _Table:
    """A parameter, its state (a sum of squares per row), and how it is trained.

    Attributes:
        read_R: how often each row was read; of no rows where that says nothing.
        kept: whether the module keeps the state.
    """

    weight_RD: nn.Parameter
    sum_R: Tensor
    read_R: Tensor
    how: RowWise
    kept: bool


class RowWiseAdagrad:
    """Trains tables of a module: each row by a learning rate that falls with its own gradients.

    Every rank holds the whole table and takes the same step: the touched rows of all ranks are
    gathered and summed, so that tables stay outside of DDP, which would exchange every row. Of a
    sharded table a rank steps the rows that lie with it.

    Args:
        tables: by the name of the parameter, how it is trained.

    Source: row-wise AdaGrad of Mudigere et al. 2022 (arXiv 2104.05158), section 4.1: the sum of a
    row is that of the mean squares of its gradients. By frequency: FAL (arXiv 2505.05605).
    Deviations: of a table whose gradient is dense, a row counts as read once a step.
    """

    def __init__(self, module: nn.Module, tables: Mapping[str, RowWise]) -> None:
        named, buffers = dict(module.named_parameters()), dict(module.named_buffers())
        self._tables = {}
        for name, how in tables.items():
            weight_RD, kept = named[name], bool(how.sums)
            sum_R = buffers[how.sums] if kept else weight_RD.detach().new_zeros(len(weight_RD))
            read_R = sum_R.new_zeros(len(sum_R) if how.by_frequency else 0, dtype=torch.int64)
            self._tables[name] = _Table(
                weight_RD=weight_RD, sum_R=sum_R, read_R=read_R, how=how, kept=kept
            )

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for table in self._tables.values():
            table.weight_RD.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients of every rank to the rows that have one."""
        for table in self._tables.values():
            if table.how.by_frequency:
                _count(table)
            row_N, grad_ND = _summed(table.weight_RD, sharded=table.how.sharded)
            total_N = table.sum_R[row_N] + grad_ND.square().mean(dim=1)
            table.sum_R[row_N] = total_N
            pace_N = table.how.learning_rate / (total_N.sqrt() + table.how.epsilon)
            if table.how.by_frequency:
                pace_N = pace_N * by_frequency(table.read_R[row_N], table.read_R.max())
            table.weight_RD.index_add_(0, row_N, -pace_N[:, None] * grad_ND)
            if table.how.max_norm:
                moved_ND = table.weight_RD[row_N]
                norm_N1 = moved_ND.norm(dim=1, keepdim=True).clamp(min=_TINY)
                table.weight_RD[row_N] = moved_ND * (table.how.max_norm / norm_N1).clamp(max=1.0)

    def tensors(self) -> Tensors:
        """The state on the CPU, named `row_sum/<parameter>`, and `row_read/...` where it counts."""
        mine = {name: table for name, table in self._tables.items() if not table.kept}
        found = {f"{_SUM}/{name}": table.sum_R.cpu().clone() for name, table in mine.items()}
        counted = {n: t for n, t in self._tables.items() if t.how.by_frequency}
        return found | {f"{_READ}/{n}": t.read_R.cpu().clone() for n, t in counted.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved state; tables without one start afresh."""
        for name, table in self._tables.items():
            if (saved := tensors.get(f"{_SUM}/{name}")) is not None:
                table.sum_R.copy_(saved)
            if (saved := tensors.get(f"{_READ}/{name}")) is not None and table.how.by_frequency:
                table.read_R.copy_(saved)


def by_frequency(read_N: Tensor, most: Tensor) -> Tensor:
    """What the rate of a row is multiplied by, 0 .. 1.

    Args:
        read_N: how often each was read.
        most: how often that one which was read most.

    Source: FAL (arXiv 2505.05605): log(F + 1) / max log(F + 1).
    """
    return torch.log1p(read_N.float()) / torch.log1p(most.float()).clamp(min=1e-12)


def _count(table: _Table) -> None:
    """Count what all ranks have read in this step."""
    grad = table.weight_RD.grad
    if grad is not None and grad.is_sparse:
        # Before it is coalesced, a sparse gradient has an entry for every time a row was read.
        row_N = grad._indices()[0]
    else:
        row_N = _touched(table.weight_RD)[0]
    if not table.how.sharded:
        row_N = gather(row_N)
    table.read_R.index_add_(0, row_N, torch.ones_like(row_N))


def _summed(weight_RD: nn.Parameter, *, sharded: bool) -> tuple[Tensor, Tensor]:
    """Rows that any rank touched, each once, and the sum of their gradients over ranks.

    Args:
        sharded: of the rows of this rank alone, which have the gradients of all ranks already.
    """
    row_N, grad_ND = _touched(weight_RD)
    if (ranks := world()[1]) > 1:
        # Losses are scaled for DDP, which averages over ranks.
        grad_ND = grad_ND / ranks
        if not sharded:
            row_N, grad_ND = gather(row_N), gather(grad_ND)
    distinct_N, place = torch.unique(row_N, return_inverse=True)
    if len(distinct_N) == len(row_N):
        return row_N, grad_ND
    total_ND = grad_ND.new_zeros((len(distinct_N), grad_ND.shape[1]))
    return distinct_N, total_ND.index_add_(0, place, grad_ND)


def _touched(weight_RD: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Rows of this rank that have a gradient, and their gradients."""
    grad = weight_RD.grad
    if grad is None:
        empty_N = torch.zeros(0, dtype=torch.int64, device=weight_RD.device)
        return empty_N, weight_RD.detach()[empty_N]
    if grad.is_sparse:
        grad = grad.coalesce()
        return grad.indices()[0], grad.values()
    row_N = grad.any(dim=1).nonzero()[:, 0]
    return row_N, grad[row_N]
