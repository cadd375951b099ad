"""A metric that keeps what was predicted, row by row, for statistics that resample users.

Shapes: B rows of a batch, N rows of all batches.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.protocol import Batch
from models.training.distributed import gather


class ScoredRows:
    """Keeps user, prediction and target of scored rows of one task; memory grows with them.

    Rows with a NaN target, and labels of other days' impressions (`late`), are no scored rows.
    """

    def __init__(self) -> None:
        self._user: list[Tensor] = []
        self._values: list[Tensor] = []

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Keep the scored rows of a batch."""
        known_B = ~torch.isnan(label_B)
        if "late" in batch:
            known_B &= ~batch["late"]
        self._user.append(batch["key:user"][known_B].cpu())
        pair_B2 = torch.stack([predicted_B[known_B], label_B[known_B]], dim=1)
        self._values.append(pair_B2.double().cpu())

    def result(self) -> dict[str, float | None]:
        """How many rows there are, over all ranks."""
        return {"rows": float(len(self.columns()["user"]))}

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        """`user` [N] (int64), `predicted` [N] and `target` [N], of all ranks in rank order."""
        nobody, nothing = torch.zeros(0, dtype=torch.int64), torch.zeros((0, 2)).double()
        user_N = gather(torch.cat([nobody, *self._user]))
        value_N2 = gather(torch.cat([nothing, *self._values]))
        found = {"user": user_N, "predicted": value_N2[:, 0], "target": value_N2[:, 1]}
        return {name: column.numpy() for name, column in found.items()}
