"""How good predictions of a number are; for tasks that are no labels.

Shapes: B rows.
"""

import math

import torch
from torch import Tensor

from models.protocol import Batch
from models.training.distributed import sum_over_ranks


class RegressionMetrics:
    """Root of the mean square, mean absolute error and bias of one task, as sums that add up."""

    def __init__(self) -> None:
        self._sums = torch.zeros(6, dtype=torch.float64)

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count scored rows of a batch; NaN targets and labels of other days are left out."""
        known_B = ~torch.isnan(label_B)
        if "late" in batch:
            known_B &= ~batch["late"]
        target_B = label_B[known_B].double().cpu()
        error_B = predicted_B[known_B].double().cpu() - target_B
        sums = (target_B, target_B.square(), error_B, error_B.abs(), error_B.square())
        self._sums += torch.stack([torch.tensor(float(len(error_B))), *(x.sum() for x in sums)])

    def result(self) -> dict[str, float | None]:
        """The numbers by name, None where undefined; `r2` is 1 less the share left unexplained."""
        rows, target, squares, error, absolute, square = sum_over_ranks(self._sums).tolist()
        if not rows:
            return {"rows": 0.0, "rmse": None, "mae": None, "bias": None, "r2": None}
        spread = squares - target**2 / rows
        return {
            "rows": rows,
            "rmse": math.sqrt(square / rows),
            "mae": absolute / rows,
            "bias": error / rows,
            "r2": 1 - square / spread if spread > 0 else None,
        }
