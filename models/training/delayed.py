"""Labels that arrive late, and the fake negatives they leave behind.

An impression is labelled with what is known when its day ends. A label that arrives later is a row
of its own, of the same impression, on the day it arrives: `late`. The impression's own row keeps
its 0, a fake negative. Trained as they stand, rows of an impression that is positive with
probability p, a share s of the time late, are

    1 + s p  in number,  p of them positive:   a model learns  b = p / (1 + s p),  too low.

Shapes: B rows, T tasks.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.distributed import sum_over_ranks

Correction = Literal["none", "weighted", "calibrated", "taken_back"]

# Share of what was counted of late labels that is kept when a day begins.
_KEEP = 0.8
# Bound of s b / (1 - b): near 1, b could not have been learned from such rows.
_MAX_TURN = 0.99


class DelayedLabels(nn.Module):
    """Cross-entropy of each row, corrected for fake negatives.

    - `none`: late positives beside their fake negatives.
    - `weighted`: importance weights that turn the rows as they are into the rows as they would be
      without delay. With f the prediction, taken as given: 1 + s f for positives,
      (1 - f)(1 + s f) / (1 - (1 - s) f) for negatives.
    - `calibrated`: trained as `none`, and predictions turned: p = b / (1 - s b).
    - `taken_back`: a late positive also takes back the negative that its impression was counted
      as: its loss is -log f + log(1 - f). Over both rows of an impression, that is the loss it
      would have had, had nothing been late; the share s is not needed.

    Args:
        tasks: T.

    Source: Ktena et al. 2019, Addressing delayed feedback for continuous training with neural
    networks in CTR prediction: fake negative weighted and fake negative calibration, s = 1.
    Deviations: s is the share of positives that are late, counted as rows go by: labels that are
    known on the day itself leave no fake negative. `taken_back` is ours: late rows are marked.
    """

    counted_2T: Tensor

    def __init__(self, tasks: int, correction: Correction) -> None:
        super().__init__()
        self.correction = correction
        self.register_buffer("counted_2T", torch.zeros(2, tasks, dtype=torch.float64))

    def forward(self, logits_BT: Tensor, target_BT: Tensor, late_B: Tensor) -> Tensor:
        """The loss_BT of each row and task; targets are 0 or 1."""
        loss_BT = functional.binary_cross_entropy_with_logits(
            logits_BT, target_BT, reduction="none"
        )
        if self.correction == "taken_back":
            return loss_BT - late_B[:, None] * functional.softplus(logits_BT)
        if self.correction == "weighted":
            return loss_BT * self._weight(logits_BT.detach(), target_BT)
        return loss_BT

    @torch.no_grad()
    def count(self, target_BT: Tensor, late_B: Tensor) -> None:
        """Count positives, and late ones, of the rows of all ranks."""
        both_2T = torch.stack([target_BT.sum(dim=0), target_BT[late_B].sum(dim=0)])
        self.counted_2T += sum_over_ranks(both_2T.double())

    @torch.no_grad()
    def fade(self) -> None:
        """Let what was counted weigh less than what the new day brings."""
        self.counted_2T *= _KEEP

    def late_share(self) -> Tensor:
        """Of the positives of each task, the share that arrives late."""
        return (self.counted_2T[1] / self.counted_2T[0].clamp(min=1)).float()

    def chances(self, logits_BT: Tensor) -> Tensor:
        """The logits_BT of a label, whenever it arrives, from those that were trained."""
        if self.correction != "calibrated":
            return logits_BT
        turn_BT = (self.late_share() * logits_BT.clamp(max=50).exp()).clamp(max=_MAX_TURN)
        return logits_BT - torch.log1p(-turn_BT)

    def _weight(self, logits_BT: Tensor, target_BT: Tensor) -> Tensor:
        chance_BT, share_T = torch.sigmoid(logits_BT), self.late_share()
        rows_BT = 1 + share_T * chance_BT
        negative_BT = (1 - chance_BT) * rows_BT / (1 - (1 - share_T) * chance_BT)
        return torch.where(target_BT == 1, rows_BT, negative_BT)


def multi_task_bce(
    logits_BT: Tensor,
    labels_BT: Tensor,
    late_B: Tensor,
    weight_T: Tensor,
    delayed: DelayedLabels,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Weighted sum over tasks of the mean cross-entropy of the rows that have the label.

    A label that is NaN is masked. Means are over the rows of all ranks; what is returned is this
    rank's part, so that the parts of all ranks add up to the loss. A task without rows adds 0.

    Args:
        weight_B: of each row in the means; None counts all the same.
    """
    known_BT = ~torch.isnan(labels_BT)
    target_BT = torch.where(known_BT, labels_BT, 0.0)
    if delayed.training:
        delayed.count(target_BT, late_B)
    each_BT = delayed(logits_BT.float(), target_BT, late_B)
    counts_BT = known_BT if weight_B is None else known_BT * weight_B[:, None]
    total_T = torch.where(known_BT, each_BT * counts_BT, 0.0).sum(dim=0)
    rows_T = sum_over_ranks(counts_BT.sum(dim=0))
    return (weight_T * total_T / torch.where(rows_T > 0, rows_T, 1)).sum()


def labels(batch: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    """The labels_BT of the named tasks, NaN where masked."""
    return torch.stack([batch[f"label:{name}"] for name in names], dim=-1)
