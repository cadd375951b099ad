"""Metrics of tasks on impressions: labels that arrive late are counted, and are no rows."""

from torch import Tensor

from models.protocol import Batch
from models.training.auc_error import AucError
from models.training.metrics import BinaryMetrics


class ImpressionMetrics:
    """Of one binary task."""

    def __init__(self) -> None:
        self._binary = BinaryMetrics()

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count the logits of a batch; of late rows only the positives."""
        self._binary.update(predicted_B, label_B, batch["late"])

    def result(self) -> dict[str, float | None]:
        """See `BinaryMetrics`."""
        return self._binary.result()


class PrimaryMetrics(ImpressionMetrics):
    """Of the task that guards look at: also how precise its AUC is, users drawn as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self._error = AucError()

    def update(self, predicted_B: Tensor, label_B: Tensor, batch: Batch) -> None:
        """Count the logits of a batch; of late rows only the positives."""
        super().update(predicted_B, label_B, batch)
        shown_B = ~batch["late"]
        self._error.update(predicted_B[shown_B], label_B[shown_B], batch["key:user"][shown_B])

    def result(self) -> dict[str, float | None]:
        """See `BinaryMetrics`; `auc_se` is the standard error of `auc`."""
        return {**super().result(), "auc_se": self._error.result()}
