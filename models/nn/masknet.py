"""Instance-guided masks.

Shapes: B rows, V width of the mask's input, H width of the masked input, W mask bottleneck,
O outputs.
"""

import torch
from torch import Tensor, nn


class MaskBlock(nn.Module):
    """out = ReLU(LN(W_h (mask * hidden))), mask = W_2 ReLU(W_1 v + b_1) + b_2.

    Args:
        mask_in_dim: V.
        hidden_dim: H.
        out_dim: O.
        ratio: W = max(1, ratio * H); above 1 as in the paper, below 1 a bottleneck.
        dropout: after the activation.

    Source: MaskNet (arXiv 2102.07619), section 3.2; W_h has no bias.
    Deviations: none.
    """

    def __init__(
        self,
        mask_in_dim: int,
        hidden_dim: int,
        out_dim: int,
        *,
        ratio: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = max(1, int(ratio * hidden_dim))
        self.squeeze = nn.Linear(mask_in_dim, width)
        self.mask = nn.Linear(width, hidden_dim)
        self.hidden = nn.Linear(hidden_dim, out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, v_BV: Tensor, x_BH: Tensor) -> Tensor:
        """Mask x_BH by what v_BV says, and project to out_BO."""
        mask_BH = self.mask(torch.relu(self.squeeze(v_BV)))
        out_BO: Tensor = self.dropout(torch.relu(self.norm(self.hidden(mask_BH * x_BH))))
        return out_BO


class ParallelMaskNet(nn.Module):
    """Several mask blocks over the same input, concatenated.

    Args:
        in_dim: V = H.
        block_dim: O of each block; the output is num_blocks * block_dim wide.

    Source: MaskNet, parallel variant (section 3.3).
    Deviations: the input is not layer-normalised here; the towers normalise their tokens.
    """

    def __init__(
        self,
        in_dim: int,
        block_dim: int,
        *,
        num_blocks: int = 4,
        ratio: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            MaskBlock(in_dim, in_dim, block_dim, ratio=ratio, dropout=dropout)
            for _ in range(num_blocks)
        )

    def forward(self, x_BH: Tensor) -> Tensor:
        """Concatenate the blocks: out_BO, O = num_blocks * block_dim."""
        return torch.cat([block(x_BH, x_BH) for block in self.blocks], dim=-1)
