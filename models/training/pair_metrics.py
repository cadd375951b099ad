"""How well pairs that happened are told from pairs that were drawn."""

from torch import Tensor

from models.protocol import Batch
from models.training.auc_error import AucError
from models.training.metrics import BinaryMetrics

_OF_ORDER = ("auc", "auc_se", "pr_auc", "rows")


class PairMetrics:
    """Of pairs and what was drawn beside them; rows of a user are drawn together.

    Args:
        order: what is predicted is an order and no probability, so nothing is said of how often it
            is right.
    """

    def __init__(self, *, order: bool = False) -> None:
        self._binary, self._error, self._order = BinaryMetrics(), AucError(), order

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count the logits of a batch."""
        self._binary.update(predicted_B, label_B)
        self._error.update(predicted_B, label_B, batch["pair:user"].repeat(2))

    def result(self) -> dict[str, float | None]:
        """See `BinaryMetrics`; `auc_se` is the standard error of `auc`."""
        found = {**self._binary.result(), "auc_se": self._error.result()}
        return {n: x for n, x in found.items() if not self._order or n in _OF_ORDER}
