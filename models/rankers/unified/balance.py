"""How much each surface counts in a training, and how much it pulls at what all share.

Shapes: B rows, S surfaces (0: one that was never seen), X width of the trunk.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.training.distributed import sum_over_ranks

# Share of what was counted that is kept when a day begins.
_KEEP = 0.8


class SurfaceBalance(nn.Module):
    """The weight of each row by its surface, and the norm of what each surface sends back.

    A row of a surface with n rows so far weighs 1 / sqrt(n): a surface counts as the root of its
    size, so that a large one does not drown a small one. Weights matter relative to each other.

    Args:
        surfaces: S.
        weights: `even` weighs all rows the same.

    Source: the losses of surfaces weighed apart, as in Pinterest's unified engagement model (2026).
    Deviations: the root is ours, since no weights are published.
    """

    rows_S: Tensor
    pulled_S: Tensor
    steps: Tensor

    def __init__(self, surfaces: int, weights: Literal["root", "even"]) -> None:
        super().__init__()
        self.weights = weights
        self.register_buffer("rows_S", torch.zeros(surfaces, dtype=torch.float64))
        self.register_buffer(
            "pulled_S", torch.zeros(surfaces, dtype=torch.float64), persistent=False
        )
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, surface_B: Tensor) -> Tensor:
        """The weight_B of rows; while training, they are counted first."""
        surface_B = surface_B.long()
        if self.training:
            seen_S = torch.bincount(surface_B, minlength=len(self.rows_S))
            self.rows_S += sum_over_ranks(seen_S.double())
        if self.weights == "even":
            return torch.ones(len(surface_B), device=surface_B.device)
        return self.rows_S.clamp(min=1).rsqrt().float()[surface_B]

    @torch.no_grad()
    def watch(self, x_BX: Tensor, surface_B: Tensor) -> None:
        """Measure the gradient that will reach what all surfaces share, by surface."""
        if not (self.training and x_BX.requires_grad):
            return

        def measure(gradient_BX: Tensor) -> None:
            square_B = gradient_BX.detach().double().square().sum(dim=1)
            square_S = torch.zeros_like(self.pulled_S).index_add_(0, surface_B.long(), square_B)
            self.pulled_S += square_S
            self.steps += 1

        x_BX.register_hook(measure)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def fade(self) -> None:
        """Let earlier days weigh less, and begin to measure anew."""
        self.rows_S *= _KEEP
        self.pulled_S.zero_()
        self.steps.zero_()

    def pulls(self) -> list[float]:
        """The root mean square norm of a step's gradient [S], since the day began."""
        square_S = sum_over_ranks(self.pulled_S) / self.steps.clamp(min=1)
        found: list[float] = square_S.sqrt().tolist()
        return found
