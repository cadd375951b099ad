"""Several experts over the same input, their products batched, and gates that mix them.

Shapes: B rows, I inputs, O outputs, D width, R rank, K experts (or towers), G gates.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.config import ExpertsConfig

_SLOPE = 0.2


class ParallelLinear(nn.Module):
    """K linear maps of the same shape, as one batched product.

    Args:
        copies: K.
        bias: whether each map has one.

    Source: none; it is torch.nn.Linear, K times.
    Deviations: the optimizer does not decay its weights, as it does those of a Linear.
    """

    def __init__(self, copies: int, in_dim: int, out_dim: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter(torch.empty(copies, in_dim, out_dim).uniform_(-bound, bound))
        start = torch.empty(copies, out_dim).uniform_(-bound, bound) if bias else None
        self.bias = None if start is None else nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """Map x_KBI, or x_BI that all maps share, to out_KBO."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class ParallelMLP(nn.Module):
    """K multi-layer perceptrons of the same shape, LeakyReLU(0.2) between their layers.

    Args:
        copies: K.
        dims: inputs, hidden widths, outputs.

    Source: the towers of tasks in MMoE (Ma et al. 2018).
    Deviations: none.
    """

    def __init__(self, copies: int, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ParallelLinear(copies, a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map x_KBI, or x_BI that all share, to out_KBO."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else functional.leaky_relu(x, _SLOPE))
        return x


class CrossExperts(nn.Module):
    """K cross networks over the same input, their products batched.

    Args:
        copies: K.
        num_layers: of each network.
        rank: None for full rank; else W = U V'.

    Source: DCNv2 (arXiv 2008.13535), equations 1 and 2.
    Deviations: none.
    """

    def __init__(self, copies: int, dim: int, num_layers: int, *, rank: int | None = None) -> None:
        super().__init__()
        inner = dim if rank is None else rank
        self.down = nn.ModuleList(
            ParallelLinear(copies, dim, inner, bias=False)
            for _ in range(0 if rank is None else num_layers)
        )
        self.layers = nn.ModuleList(ParallelLinear(copies, inner, dim) for _ in range(num_layers))

    def forward(self, x0_BD: Tensor) -> Tensor:
        """Cross x0_BD with itself, layer by layer: out_KBD."""
        x = x0_BD
        for index, layer in enumerate(self.layers):
            low = self.down[index](x) if len(self.down) else x
            x = x0_BD * layer(low) + x
        return x


class Gates(nn.Module):
    """G light gates over K experts: one linear map and a softmax.

    Source: MMoE, section 4.1.
    Deviations: one gate shared by all tasks is the mixture of experts of Jacobs and Jordan 1991.
    """

    def __init__(self, dim: int, num_gates: int, num_experts: int) -> None:
        super().__init__()
        self.shape = (num_gates, num_experts)
        self.linear = nn.Linear(dim, num_gates * num_experts, bias=False)

    def forward(self, x_BD: Tensor) -> Tensor:
        """The shares_BGK of the experts; those of a gate add up to 1."""
        return torch.softmax(self.linear(x_BD).unflatten(-1, self.shape).float(), dim=-1)


class Experts(nn.Module):
    """Experts that are DCNv2: cross, then deep.

    Source: DERM (arXiv 2509.04337), section 3.2, mixture of experts with DCNv2.
    Deviations: stacked (cross, then deep), not parallel.
    """

    def __init__(self, dim: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.cross = CrossExperts(
            config.num_experts, dim, config.cross_layers, rank=config.cross_rank
        )
        self.deep = ParallelMLP(config.num_experts, (dim, *config.hidden))
        self.out_dim = config.hidden[-1]

    def forward(self, x_BD: Tensor) -> Tensor:
        """Map x_BD to out_KBO, what each expert makes of it."""
        return functional.leaky_relu(self.deep(self.cross(x_BD)), _SLOPE)


class ExpertMixture(Experts):
    """Experts, mixed by each gate.

    f_g(x) = sum_k gate_g(x)_k expert_k(x).

    Args:
        num_gates: G; 1 is shared by all tasks, as many as there are tasks is MMoE.

    Source: MMoE (Ma et al. 2018), over the experts of DERM.
    Deviations: none.
    """

    def __init__(self, dim: int, num_gates: int, config: ExpertsConfig) -> None:
        super().__init__(dim, config)
        self.gates = Gates(dim, num_gates, config.num_experts)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Map x_BD to out_GBO, what each gate makes of the experts."""
        return mixed(super().forward(x_BD), self.gates(x_BD))


def mixed(expert_KBO: Tensor, share_BGK: Tensor) -> Tensor:
    """What each gate makes of the experts, out_GBO."""
    return torch.einsum("bgk,kbo->gbo", share_BGK.to(expert_KBO.dtype), expert_KBO)
