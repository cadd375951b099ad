"""Explicit feature crosses (DCNv2).

Shapes: B rows, D width, R rank, K experts.
"""

import torch
from torch import Tensor, nn


class CrossLayer(nn.Module):
    """next = x_0 * (W x + b) + x, with W of full rank.

    Source: DCNv2 (arXiv 2008.13535), equation 1.
    Deviations: none.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x0_BD: Tensor, x_BD: Tensor) -> Tensor:
        """Cross x_BD with the network's input x0_BD."""
        next_BD: Tensor = x0_BD * self.linear(x_BD) + x_BD
        return next_BD


class LowRankCrossLayer(nn.Module):
    """A gated mixture of low-rank crosses.

    next = sum_k softmax_k(G x) * x_0 * (U_k tanh(C_k tanh(V_k' x)) + b) + x; one expert has no
    gate, and is the plain low-rank layer W = U V'.

    Source: DCNv2, equations 2 to 4.
    Deviations: with one expert there is no tanh and no C, so that it equals W = U V' exactly.
    """

    def __init__(self, dim: int, rank: int, num_experts: int = 1) -> None:
        super().__init__()
        scale = dim**-0.5
        self.down = nn.Parameter(torch.randn(num_experts, dim, rank) * scale)
        self.up = nn.Parameter(torch.randn(num_experts, rank, dim) * rank**-0.5)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.mixture = num_experts > 1
        if self.mixture:
            self.core = nn.Parameter(torch.randn(num_experts, rank, rank) * rank**-0.5)
            self.gate = nn.Linear(dim, num_experts, bias=False)

    def forward(self, x0_BD: Tensor, x_BD: Tensor) -> Tensor:
        """Cross x_BD with the network's input x0_BD."""
        low_KBR = torch.einsum("bd,kdr->kbr", x_BD, self.down)
        if not self.mixture:
            return x0_BD * (torch.einsum("kbr,krd->bd", low_KBR, self.up) + self.bias) + x_BD
        low_KBR = torch.tanh(torch.einsum("kbr,krs->kbs", torch.tanh(low_KBR), self.core))
        crossed_KBD = x0_BD * (torch.einsum("kbr,krd->kbd", low_KBR, self.up) + self.bias)
        gate_BK = torch.softmax(self.gate(x_BD), dim=-1)
        return torch.einsum("bk,kbd->bd", gate_BK, crossed_KBD) + x_BD


class CrossNetwork(nn.Module):
    """A stack of cross layers.

    Args:
        rank: None for full rank.

    Source: DCNv2, section 3.1.
    Deviations: none.
    """

    def __init__(
        self, dim: int, num_layers: int, *, rank: int | None = None, num_experts: int = 1
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossLayer(dim) if rank is None else LowRankCrossLayer(dim, rank, num_experts)
            for _ in range(num_layers)
        )

    def forward(self, x_BD: Tensor) -> Tensor:
        """Cross x_BD with itself, layer by layer."""
        out_BD = x_BD
        for layer in self.layers:
            out_BD = layer(x_BD, out_BD)
        return out_BD
