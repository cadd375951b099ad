"""The two losses: multi-task cross-entropy, and a sampled softmax between the entity towers.

Shapes: B rows of this rank, N rows of all ranks, R positives of this rank, P pool, E embedding
width, T tasks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.derm.features import Batch, labels
from models.derm.model import DermModel
from models.nn.count_min import CountMinSketch
from models.nn.sampled_softmax import (
    NO_USER,
    Pool,
    Positives,
    SampledSoftmax,
    log_q_exact,
    log_q_linear,
)
from models.training.distributed import gather, gather_with_gradient, sum_over_ranks, world


def multi_task_bce(logits_BT: Tensor, labels_BT: Tensor, weight_T: Tensor) -> Tensor:
    """Weighted sum over tasks of the mean cross-entropy of the rows that have the label.

    A label that is NaN is masked. Means are over the rows of all ranks; what is returned is this
    rank's part, so that the parts of all ranks add up to the loss. A task without rows adds 0.
    """
    known_BT = ~torch.isnan(labels_BT)
    target_BT = torch.where(known_BT, labels_BT, 0.0)
    each_BT = functional.binary_cross_entropy_with_logits(
        logits_BT.float(), target_BT, reduction="none"
    )
    total_T = torch.where(known_BT, each_BT, 0.0).sum(dim=0)
    rows_T = sum_over_ranks(known_BT.sum(dim=0)).clamp(min=1)
    return (weight_T * total_T / rows_T).sum()


class DermObjective(nn.Module):
    """The model and what it is trained for; the model inside stays exportable.

    total = sum_t w_t BCE_t + lambda * mean over positive rows of the sampled softmax. Negatives
    are the Pins of the batch, positive or not, of all ranks; the same Q corrects positives and
    negatives.

    Source: DERM, section 3.1 (losses); Q from a count-min sketch as in OmniSearchSage.
    Deviations: false negatives are masked (same Pin, same user's other positives), as in
    PinnerFormer; DERM does not mention it. Where the pool is smaller than the batch, an even stride
    over the shuffled rows is the random sample.
    """

    def __init__(self, model: DermModel) -> None:
        super().__init__()
        self.model = model
        self.loss = model.config().loss
        self.softmax = SampledSoftmax(self.loss.temperature)
        self.sketch = CountMinSketch(self.loss.sketch_depth, self.loss.sketch_width)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to this rank's part of `total`, `supervised` and `self_supervised`.

        In training mode the batch's Pins are counted first.
        """
        inputs = self.model.inputs
        out = self.model(batch)
        cap = self.loss.weight_cap(inputs.upstream)
        weight_T = self.model.base_rate_T.reciprocal().clamp(min=1.0, max=cap)
        supervised = multi_task_bce(out["logits"], labels(batch, inputs.tasks), weight_T)
        if self.loss.ssl_weight == 0:
            return {"total": supervised, "supervised": supervised}
        positive_B = (labels(batch, inputs.positives) == 1).any(dim=-1)
        contrast = self.self_supervised(out, batch, positive_B)
        total = supervised + self.loss.ssl_weight * contrast
        return {"total": total, "supervised": supervised, "self_supervised": contrast}

    def self_supervised(self, out: dict[str, Tensor], batch: Batch, positive_B: Tensor) -> Tensor:
        """This rank's part of the mean softmax loss over the positive rows of all ranks."""
        pin_B, user_B = batch["key:pin"], batch["key:user"]
        pin_N = gather(pin_B)
        if self.training:
            self.sketch.update(pin_N)
        size = min(self.loss.max_negatives, len(pin_N))
        # Rows lie in rank order: an even stride draws from every rank alike.
        drawn_P = torch.arange(size, device=pin_B.device) * len(pin_N) // max(size, 1)
        pool_user_N = gather(torch.where(positive_B, user_B, NO_USER))
        pool = Pool(
            item_PD=gather_with_gradient(out["pin"])[drawn_P],
            item_id_P=pin_N[drawn_P],
            user_id_P=pool_user_N[drawn_P],
            log_q_P=self._log_q(pin_N[drawn_P], size),
        )
        positives = Positives(
            query_RD=out["user"][positive_B],
            item_RD=out["pin"][positive_B],
            item_id_R=pin_B[positive_B],
            user_id_R=user_B[positive_B],
            log_q_R=self._log_q(pin_B[positive_B], size),
        )
        rows = sum_over_ranks(positive_B.sum()).clamp(min=1)
        each_R: Tensor = self.softmax(positives, pool)
        return each_R.sum() / rows

    def _log_q(self, pin_N: Tensor, size: int) -> Tensor:
        count_N = self.sketch.count(pin_N).clamp(min=1)
        total = self.sketch.total.clamp(min=1)
        estimate = log_q_linear if self.loss.q_estimator == "linear" else log_q_exact
        return estimate(count_N, total, size)


def for_backward(total: Tensor) -> Tensor:
    """This rank's part of a loss, scaled so that DDP's mean of gradients is their sum."""
    return total * world()[1]
