"""How good are predictions, and are the embeddings healthy; in memory that does not grow.

Shapes: B rows, C bins, E embedding width.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.distributed import sum_over_ranks

_BINS = 2**16
_LOGIT_BOUND = 20.0
_CALIBRATION_BINS = 20

Floats = npt.NDArray[np.float64]


class BinaryMetrics:
    """Streaming metrics of one binary task.

    Scores are counted in 65,536 bins of the logit, so that memory does not grow with rows and
    ranks add up; sums of losses and probabilities are exact.
    """

    def __init__(self) -> None:
        self._hist_2C = torch.zeros(2, _BINS, dtype=torch.float64)
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, logit_B: Tensor, label_B: Tensor, late_B: Tensor | None = None) -> None:
        """Count scored rows; those with a NaN label are left out.

        Args:
            late_B: labels of other days' impressions, which are not scored: of these, only the
                positives are counted.
        """
        known_B = ~torch.isnan(label_B)
        if late_B is not None:
            self._sums[2] += (label_B[late_B] == 1).sum().cpu()
            known_B &= ~late_B
        logit_B, label_B = logit_B[known_B].double().cpu(), label_B[known_B].double().cpu()
        bins_B = (
            ((logit_B + _LOGIT_BOUND) * (_BINS / (2 * _LOGIT_BOUND))).long().clamp(0, _BINS - 1)
        )
        for hist_C, share_B in zip(self._hist_2C, (1 - label_B, label_B), strict=True):
            hist_C.index_add_(0, bins_B, share_B)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logit_B, label_B, reduction="sum"
        )
        self._sums[:2] += torch.stack([losses, torch.sigmoid(logit_B).sum()])

    def result(self) -> dict[str, float | None]:
        """The numbers by name, None where undefined.

        `calibration` is predicted by known positives of the scored rows. Where labels are late, few
        are known at first: `calibration_arrived` is predicted by all positives that arrived,
        whichever day's impressions they are of.
        """
        negatives_C, positives_C = sum_over_ranks(self._hist_2C).numpy()
        loss, predicted, late = sum_over_ranks(self._sums).tolist()
        positives, negatives = float(positives_C.sum()), float(negatives_C.sum())
        rows = positives + negatives
        if rows == 0:
            return {"rows": 0.0, **dict.fromkeys(_NAMES)}
        rate = positives / rows
        one_class = positives == 0 or negatives == 0
        return {
            "rows": rows,
            "base_rate": rate,
            "auc": None if one_class else _auc(positives_C, negatives_C),
            "pr_auc": None if one_class else _average_precision(positives_C, negatives_C),
            "logloss": loss / rows,
            "ne": None if one_class else normalized_entropy(loss / rows, rate),
            "calibration": predicted / positives if positives else None,
            "calibration_arrived": predicted / (positives + late) if positives + late else None,
            "ece": _calibration_error(positives_C, negatives_C),
        }


_NAMES = (
    *("base_rate", "auc", "pr_auc", "logloss", "ne"),
    *("calibration", "calibration_arrived", "ece"),
)


def normalized_entropy(logloss: float, base_rate: float) -> float:
    """Cross-entropy divided by that of always predicting the base rate.

    Source: DHEN (arXiv 2203.11014), section 5.
    """
    entropy = -base_rate * math.log(base_rate) - (1 - base_rate) * math.log(1 - base_rate)
    return logloss / entropy


def effective_rank(vectors_BE: Tensor) -> float:
    """Exponential of the entropy of singular values: 1 when all vectors are parallel.

    Source: Roy and Vetterli 2007. Not centred: a shared direction is a collapse too.
    """
    values = torch.linalg.svdvals(vectors_BE.double())
    share = values / values.sum()
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def _auc(positives_C: Floats, negatives_C: Floats) -> float:
    """Probability that a positive outranks a negative; ties within a bin count half."""
    below_C = np.cumsum(negatives_C) - negatives_C
    wins = (positives_C * (below_C + negatives_C / 2)).sum()
    return float(wins / (positives_C.sum() * negatives_C.sum()))


def _average_precision(positives_C: Floats, negatives_C: Floats) -> float:
    """Sum of precision times the step of recall, from the highest bin down."""
    found_C = np.cumsum(positives_C[::-1])
    shown_C = found_C + np.cumsum(negatives_C[::-1])
    precision_C = found_C / np.maximum(shown_C, 1)
    return float((precision_C * positives_C[::-1]).sum() / positives_C.sum())


def _calibration_error(positives_C: Floats, negatives_C: Floats) -> float:
    """Mean absolute gap between predicted and observed rate over 20 bins of equal mass."""
    rows_C = positives_C + negatives_C
    logit_C = (np.arange(_BINS) + 0.5) * (2 * _LOGIT_BOUND / _BINS) - _LOGIT_BOUND
    mass_C = np.cumsum(rows_C) - rows_C / 2
    group_C = np.minimum(mass_C / rows_C.sum() * _CALIBRATION_BINS, _CALIBRATION_BINS - 1)
    group_C = group_C.astype(np.int64)
    predicted = np.bincount(group_C, rows_C / (1 + np.exp(-logit_C)), _CALIBRATION_BINS)
    observed = np.bincount(group_C, positives_C, _CALIBRATION_BINS)
    return float(np.abs(predicted - observed).sum() / rows_C.sum())
