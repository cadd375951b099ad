"""Dropout whose random numbers are cheap on a CPU.

There torch draws 64 bits for every element, which takes a quarter of a small encoder's time; 16 do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16
_PER_DRAW = 4


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Zero about `share` of the elements of x, scale the others; on a CPU in steps of 2^-16."""
    if not training or not share:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, share, training)
    kept = round((1 - share) * _LEVELS)
    if not kept:
        return x * 0
    drawn = torch.empty(-(-x.numel() // _PER_DRAW), dtype=torch.int64)
    levels = drawn.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
    mask = (levels < kept - _LEVELS // 2).to(x.dtype) * (_LEVELS / kept)
    return x * mask


class Dropout(nn.Module):
    """`dropout` between the layers of a Sequential.

    Source: Srivastava et al. 2014.
    Deviations: shares are multiples of 2^-16 on a CPU.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """The x with some elements zeroed, while training."""
        return dropout(x, self.share, self.training)
