"""What belongs to one surface: its gates over the shared experts, its own features, its towers.

Shapes: B rows of the surface, X width of the trunk's inputs, K experts, O width of an expert, G
gates, T tasks, V width of the surface's own features.
"""

import torch
from torch import Tensor, nn

from models.nn.config import ExpertsConfig
from models.nn.experts import CrossExperts, Gates, ParallelLinear, ParallelMLP, mixed
from models.rankers.unified.config import TreeConfig


class SurfaceTree(nn.Module):
    """The tree of one surface: a gate and a tower for each task, over what the trunk made.

    Args:
        dims: X, O and V; the last is 0 where the surface has no features of its own.
        tasks: T.
        experts: of the trunk; its `gate` says whether tasks share one.
        silent: begin with no opinion at all: every row is the base rate until it learns otherwise.

    Source: MMoE (Ma et al. 2018), section 4.1; tower trees with late fusion of a surface's own
    features (Pinterest's unified engagement model, 2026).
    Deviations: none.
    """

    def __init__(
        self,
        dims: tuple[int, int, int],
        tasks: int,
        experts: ExpertsConfig,
        config: TreeConfig,
        *,
        silent: bool = False,
    ) -> None:
        super().__init__()
        inputs, made, own = dims
        self.tasks = tasks
        gates = tasks if experts.gate == "per_task" else 1
        # One expert needs no gate: it is a shared bottom.
        self.gates = Gates(inputs, gates, experts.num_experts) if experts.num_experts > 1 else None
        width = made + own
        self.cross = CrossExperts(tasks, width, config.cross_layers)
        self.towers = ParallelMLP(tasks, (width, *config.hidden, 1))
        self.bias_T = nn.Parameter(torch.zeros(tasks))
        last = self.towers.layers[-1]
        if silent and isinstance(last, ParallelLinear) and last.bias is not None:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x_BX: Tensor, expert_KBO: Tensor, own_BV: Tensor | None) -> Tensor:
        """Map what the trunk made of rows of this surface to logits_BT."""
        made_GBO = expert_KBO if self.gates is None else mixed(expert_KBO, self.gates(x_BX))
        x_TB = made_GBO.expand(self.tasks, *made_GBO.shape[1:])
        if own_BV is not None:
            x_TB = torch.cat([x_TB, own_BV.expand(self.tasks, *own_BV.shape)], dim=-1)
        logits_TB1 = self.towers(self.cross(x_TB))
        logits_BT: Tensor = logits_TB1.squeeze(-1).T.float() + self.bias_T
        return logits_BT
