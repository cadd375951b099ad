"""Two models on the same rows: how much better is one, and how sure is that?

Users are what varies: they fall into groups by their hash, each with its histograms, and groups are
drawn again. Memory does not grow with rows.

Shapes: B rows, A models (2), G groups, C bins of the logit, R draws.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.training.auc_error import auc_of_each

_GROUPS = 128
_LOGIT_BOUND = 12.0
# Draws whose histograms are in memory together.
_AT_ONCE = 32
_LEVEL = (2.5, 97.5)


class PairedAuc:
    """The AUC of two models on one binary task, and the interval of their difference.

    Args:
        draws: of groups of users, with repetition.
        seed: of the draws.
        bins: of the logit, C; memory grows with them.

    Source: the bootstrap over users, a group of users at a time (Field and Welsh 2007).
    """

    def __init__(self, draws: int, seed: int, *, bins: int = 2**14) -> None:
        self._draws, self._seed, self._bins = draws, seed, bins
        self._hist_A2GC = torch.zeros(2, 2, _GROUPS, bins, dtype=torch.float64)

    def update(self, logit_AB: Tensor, label_B: Tensor, user_B: Tensor) -> None:
        """Count scored rows; those with a NaN label are left out.

        Args:
            user_B: hashed ids of their users, int64.
        """
        known_B = ~torch.isnan(label_B)
        label_B, group_B = label_B[known_B].long(), user_B[known_B] % _GROUPS
        one_B = torch.ones(len(label_B), dtype=torch.float64)
        for hist_2GC, logit_B in zip(self._hist_A2GC, logit_AB, strict=True):
            scaled_B = (logit_B[known_B].double() + _LOGIT_BOUND) * (
                self._bins / (2 * _LOGIT_BOUND)
            )
            bin_B = scaled_B.long().clamp(0, self._bins - 1)
            at_B = (label_B * _GROUPS + group_B) * self._bins + bin_B
            hist_2GC.view(-1).index_add_(0, at_B, one_B)

    def result(self) -> dict[str, float | None]:
        """The AUC of both, their difference, and the 95 % interval of it.

        None where it is not known: a class is missing, or all rows are of one group of users.
        """
        names = ("auc_with", "auc_without", "worth", "worth_low", "worth_high")
        nothing: dict[str, float | None] = dict.fromkeys(names)
        hist_A2GC = self._hist_A2GC.numpy()
        if (hist_A2GC[0].sum(axis=(1, 2)) == 0).any():
            return nothing
        with_, without = (float(auc_of_each(h[1:].sum(1), h[:1].sum(1))[0]) for h in hist_A2GC)
        found = nothing | {"auc_with": with_, "auc_without": without, "worth": with_ - without}
        low, high = self._interval(hist_A2GC)
        return found | {"worth_low": low, "worth_high": high}

    def _interval(self, hist_A2GC: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
        seen = hist_A2GC[0].any(axis=(0, 2))
        groups = int(seen.sum())
        if groups < 2:
            return None, None
        random = np.random.default_rng(self._seed)
        weight_RG = random.multinomial(groups, np.full(groups, 1 / groups), self._draws)
        # An empty bin decides nothing.
        hist_A2GC = hist_A2GC[:, :, :, hist_A2GC.any(axis=(0, 1, 2))]
        parts = range(0, self._draws, _AT_ONCE)
        found = [_differences(weight_RG[i : i + _AT_ONCE], hist_A2GC[:, :, seen]) for i in parts]
        worth = np.concatenate(found)
        if len(worth) < self._draws / 2:
            return None, None
        low, high = np.percentile(worth, _LEVEL)
        return float(low), float(high)


def _differences(
    weight_RG: npt.NDArray[np.int64], hist_A2GC: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The difference of the AUCs in each draw that has both classes."""
    drawn = [[weight_RG @ h_GC for h_GC in h_2GC] for h_2GC in hist_A2GC]
    both_R = (drawn[0][0].sum(axis=1) > 0) & (drawn[0][1].sum(axis=1) > 0)
    with_R, without_R = (auc_of_each(pos[both_R], neg[both_R]) for neg, pos in drawn)
    found: npt.NDArray[np.float64] = with_R - without_R
    return found
