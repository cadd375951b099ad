"""How well a day knows its AUC: the rows of one user are alike, so users are what varies.

Memory does not grow: users fall into groups by their hash, and each group has its histogram.

Shapes: B rows, G groups, C bins of the logit.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.distributed import sum_over_ranks

_GROUPS = 64
_BINS = 2**13
_LOGIT_BOUND = 20.0

Floats = npt.NDArray[np.float64]


class AucError:
    """Standard error of the AUC of one binary task, by a jackknife that leaves out groups of users.

    Source: Kott, The delete-a-group jackknife, Journal of Official Statistics 17(4), 2001.
    """

    def __init__(self) -> None:
        self._hist_2GC = torch.zeros(2, _GROUPS, _BINS, dtype=torch.float64)

    def update(self, logit_B: Tensor, label_B: Tensor, user_B: Tensor) -> None:
        """Count scored rows; those with a NaN label are left out.

        Args:
            user_B: hashed ids of their users, int64.
        """
        known_B = ~torch.isnan(label_B)
        logit_B, label_B = logit_B[known_B].double().cpu(), label_B[known_B].long().cpu()
        group_B = user_B[known_B].cpu() % _GROUPS
        scaled_B = (logit_B + _LOGIT_BOUND) * (_BINS / (2 * _LOGIT_BOUND))
        at_B = (label_B * _GROUPS + group_B) * _BINS + scaled_B.long().clamp(0, _BINS - 1)
        self._hist_2GC.view(-1).index_add_(0, at_B, torch.ones(len(at_B), dtype=torch.float64))

    def result(self) -> float | None:
        """The standard error; None where the AUC rests on the users of a single group.

        Of few groups the spread is hardly known: one more is assumed, as far off as it can be.
        """
        negatives_GC, positives_GC = sum_over_ranks(self._hist_2GC).numpy()
        seen = (negatives_GC + positives_GC).any(axis=1)
        without = [h.sum(axis=0) - h[seen] for h in (positives_GC, negatives_GC)]
        groups = int(seen.sum())
        if groups < 2 or any((h.sum(axis=1) == 0).any() for h in without):
            return None
        auc_G = auc_of_each(*without)
        variance = (groups - 1) / groups * float(((auc_G - auc_G.mean()) ** 2).sum())
        assumed = (1 - groups / _GROUPS) * (0.5 / groups) ** 2
        return math.sqrt(variance + assumed)


def auc_of_each(positives_GC: Floats, negatives_GC: Floats) -> Floats:
    """AUC [G] of each pair of histograms; ties within a bin count half."""
    below_GC = np.cumsum(negatives_GC, axis=1) - negatives_GC
    wins_G = (positives_GC * (below_GC + negatives_GC / 2)).sum(axis=1)
    auc_G: Floats = wins_G / (positives_GC.sum(axis=1) * negatives_GC.sum(axis=1))
    return auc_G
