"""How well pairs are told from drawn ones.

Shapes: Q pairs.
"""

from torch import Tensor

from models.protocol import Batch
from models.training.auc_error import AucError
from models.training.metrics import BinaryMetrics


class PairMetrics:
    """Of pairs and drawn Pins; rows of a user are drawn together."""

    def __init__(self) -> None:
        self._binary, self._error = BinaryMetrics(), AucError()

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count the logits of a batch."""
        self._binary.update(predicted_B, label_B)
        self._error.update(predicted_B, label_B, batch["pair:user"].repeat(2))

    def result(self) -> dict[str, float | None]:
        """See `BinaryMetrics`; `auc_se` is the standard error of `auc`."""
        return {**self._binary.result(), "auc_se": self._error.result()}
