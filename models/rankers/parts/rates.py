"""Where a ranker begins: at the base rates of its tasks.

Shapes: T tasks.
"""

import math

import torch
from torch import Tensor

from models.protocol import FirstWindow


def base_logits(window: FirstWindow, tasks: tuple[str, ...]) -> Tensor:
    """The logits_T of the base rates of tasks, which a ranker begins with."""
    rates = (min(max(window.base_rates[task], 1e-4), 1 - 1e-4) for task in tasks)
    return torch.tensor([math.log(rate / (1 - rate)) for rate in rates])
