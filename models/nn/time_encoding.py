"""Times as waves of fixed periods.

Shapes: B rows (any leading dimensions), P periods, O outputs.
"""

import math

import torch
from torch import Tensor, nn

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class TimeEncoding(nn.Module):
    """[cos(2 pi t / p + a), sin(2 pi t / p + b) for each period p, then log(1 + t)].

    Args:
        periods_s: P periods in seconds.
        with_log: append log(1 + t): for durations and gaps, not for absolute times.

    Source: PinnerFormer (arXiv 2205.04507), section 3.1; periods fixed, phases a and b learned.
    Deviations: log(1 + t), since log t diverges at 0; phases are computed in float64, since
    float32 cannot resolve seconds at 1.7e9.
    """

    periods_P: Tensor

    def __init__(self, periods_s: tuple[float, ...], *, with_log: bool = True) -> None:
        super().__init__()
        self.with_log = with_log
        self.out_dim = 2 * len(periods_s) + with_log
        self.phase = nn.Parameter(torch.zeros(2, len(periods_s)))
        self.register_buffer("periods_P", torch.tensor(periods_s, dtype=torch.float64))

    def forward(self, t_B: Tensor) -> Tensor:
        """Encode seconds t_B (float64 or integers) as out_BO, waves interleaved cos, sin."""
        t_B = t_B.double()
        turns_BP = torch.remainder(t_B[..., None] / self.periods_P, 1.0)
        angle_BP = (2 * math.pi * turns_BP).to(self.phase.dtype)
        waves = [torch.cos(angle_BP + self.phase[0]), torch.sin(angle_BP + self.phase[1])]
        out_BO = torch.stack(waves, dim=-1).flatten(-2)
        if not self.with_log:
            return out_BO
        return torch.cat([out_BO, torch.log1p(t_B)[..., None].to(out_BO.dtype)], dim=-1)
