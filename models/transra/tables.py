"""Vectors of nodes: a table of which a step reads and changes a few rows.

Shapes: N nodes, U nodes of a step, D width.
"""

import torch
from torch import Tensor, nn

_TINY = 1e-10


class NodeTable(nn.Module):
    """A vector per node, and Adagrad's accumulator, one number per node.

    No optimizer that goes over all parameters may have it: it would touch every row each step.

    Args:
        nodes: N.
        width: D.

    Source: row-wise Adagrad as in DLRM (Naumov et al. 2019) and PyTorch-BigGraph (Lerer et al.
    2019); vectors of norm 1 to begin with, and at most 1 after, from TransE (Bordes et al. 2013).
    Deviations: none.
    """

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        start_ND = nn.functional.normalize(torch.randn(nodes, width), dim=-1)
        self.vector_ND = nn.Parameter(start_ND)
        self.register_buffer("squares_N", torch.zeros(nodes))

    squares_N: Tensor

    def __len__(self) -> int:
        return len(self.vector_ND)

    def gather(self, node_U: Tensor) -> Tensor:
        """The vector_UD of some nodes as a leaf of their own, which gathers a gradient."""
        return self.vector_ND.detach()[node_U].requires_grad_()

    def resize(self, nodes: int) -> None:
        """Room for another number of nodes; what was there is gone."""
        wide = self.vector_ND.new_zeros(nodes, self.vector_ND.shape[1])
        self.vector_ND = nn.Parameter(wide)
        self.squares_N = self.squares_N.new_zeros(nodes)

    @torch.no_grad()
    def update(self, node_U: Tensor, found_UD: Tensor, *, rate: float, max_norm: float) -> None:
        """One step of row-wise Adagrad, then the bound on the norm, on these rows alone.

        Args:
            node_U: distinct.
            found_UD: what `gather` gave for them, with its gradient.
            max_norm: 0 sets no bound.
        """
        if found_UD.grad is None:
            return
        gradient_UD = found_UD.grad
        squares_U = self.squares_N[node_U] + gradient_UD.square().mean(dim=1)
        step_U1 = (rate / (squares_U.sqrt() + _TINY))[:, None]
        moved_UD = found_UD.detach() - step_U1 * gradient_UD
        if max_norm:
            moved_UD *= (max_norm / moved_UD.norm(dim=1, keepdim=True).clamp(min=_TINY)).clamp(
                max=1.0
            )
        self.vector_ND.data.index_copy_(0, node_U, moved_UD)
        self.squares_N.index_copy_(0, node_U, squares_U)
