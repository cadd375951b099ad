"""The two losses: multi-task cross-entropy, and a sampled softmax between the entity towers.

Shapes: B rows of this rank, N rows of all ranks, R positives of this rank, P pool, M random Pins
of all ranks, E embedding width, T tasks.
"""

import torch
from torch import Tensor

from feature_store.contracts.base import Entity
from models.derm.features import RANDOM
from models.derm.model import DermModel
from models.nn.count_min import CountMinSketch
from models.nn.sampled_softmax import (
    NO_USER,
    Pool,
    Positives,
    SampledSoftmax,
    concatenate,
    log_q_exact,
    log_q_linear,
    log_q_of_either,
)
from models.protocol import Batch, Metric, Objective
from models.training.delayed import DelayedLabels, labels, multi_task_bce
from models.training.distributed import gather, gather_with_gradient, sum_over_ranks
from models.training.impressions import ImpressionMetrics, PrimaryMetrics

LOSSES = ("total", "supervised", "self_supervised")


class DermObjective(Objective):
    """The model and what it is trained for; the model inside stays exportable.

    total = sum_t w_t BCE_t + lambda * mean over positive rows of the sampled softmax. Negatives
    are the Pins of the batch, positive or not, of all ranks, and `random_negatives` others of each
    rank; the same Q corrects positives and negatives.

    Source: DERM, section 3.1 (losses); Q from count-min sketches as in OmniSearchSage.
    Deviations: false negatives are masked (same Pin, same user's other positives), as in
    PinnerFormer; DERM does not mention it. Where the pool is smaller than the batch, an even stride
    over the shuffled rows is the random sample. Random Pins are PinnerFormer's, off by default;
    OmniSearchSage gives a Pin of both sources two Qs, here it has one (`log_q_of_either`).
    """

    def __init__(self, model: DermModel) -> None:
        super().__init__()
        self.model = model
        self.loss = model.config().loss
        self.delayed = DelayedLabels(len(model.inputs.tasks), self.loss.delayed)
        self.softmax = SampledSoftmax(self.loss.temperature)
        depth, width = self.loss.sketch_depth, self.loss.sketch_width
        self.sketch = CountMinSketch(depth, width)
        self.random_sketch = CountMinSketch(depth, width) if self.loss.random_negatives else None
        self.tasks, self.losses = model.inputs.tasks, LOSSES
        # Without the self-supervised loss the temperature is not used.
        self.every_parameter_learns = self.loss.ssl_weight > 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to this rank's part of `total`, `supervised` and `self_supervised`.

        In training mode the batch's Pins, and the random ones, are counted first.
        """
        inputs = self.model.inputs
        out = self.model(batch)
        cap = self.loss.weight_cap
        weight_T = self.model.base_rate_T.reciprocal().clamp(min=1.0, max=cap)
        supervised = multi_task_bce(
            out["logits"], labels(batch, inputs.tasks), batch["late"], weight_T, self.delayed
        )
        if self.loss.ssl_weight == 0:
            return {"total": supervised, "supervised": supervised}
        positive_B = (labels(batch, inputs.positives) == 1).any(dim=-1)
        contrast = self.self_supervised(out, batch, positive_B)
        total = supervised + self.loss.ssl_weight * contrast
        return {"total": total, "supervised": supervised, "self_supervised": contrast}

    def begin_day(self) -> None:
        """Let what was counted on the days before weigh less than what the new one brings."""
        self.delayed.fade()
        for sketch in (self.sketch, self.random_sketch):
            if sketch is not None:
                sketch.fade(self.loss.sketch_keep)

    def predict(self, batch: Batch) -> Tensor:
        """The logits_BT of every label, whenever it arrives."""
        return self.delayed.chances(self.model(batch)["logits"])

    def targets(self, batch: Batch) -> Tensor:
        """The labels_BT that are known."""
        return labels(batch, self.tasks)

    def metrics(self) -> dict[str, Metric]:
        """Of impressions alone; the primary task knows how precise its AUC is."""
        primary, *others = self.tasks
        return {primary: PrimaryMetrics()} | {task: ImpressionMetrics() for task in others}

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UE of distinct users or Pins."""
        return self.model.embed(entity, batch)

    def numbers(self) -> dict[str, float]:
        """The temperature of the softmax."""
        return {"temperature": 1 / self.softmax.scale().item()}

    def self_supervised(self, out: dict[str, Tensor], batch: Batch, positive_B: Tensor) -> Tensor:
        """This rank's part of the mean softmax loss over the positive rows of all ranks."""
        pin_B, user_B = batch["key:pin"], batch["key:user"]
        pin_N = gather(pin_B)
        if self.training:
            self.sketch.update(pin_N)
        outside = self._random_pins(batch)
        sizes = (
            min(self.loss.max_negatives, len(pin_N)),
            0 if outside is None else len(outside[1]),
        )
        size = sizes[0]
        # Rows lie in rank order: an even stride draws from every rank alike.
        drawn_P = torch.arange(size, device=pin_B.device) * len(pin_N) // max(size, 1)
        pool_user_N = gather(torch.where(positive_B, user_B, NO_USER))
        pool = Pool(
            item_PD=gather_with_gradient(out["pin"])[drawn_P],
            item_id_P=pin_N[drawn_P],
            user_id_P=pool_user_N[drawn_P],
            log_q_P=self._log_q(pin_N[drawn_P], sizes),
            distinct=self.loss.q_estimator == "exact",
        )
        if outside is not None:
            item_ME, id_M = outside
            user_M, log_q_M = torch.full_like(id_M, NO_USER), self._log_q(id_M, sizes)
            others = Pool(item_PD=item_ME, item_id_P=id_M, user_id_P=user_M, log_q_P=log_q_M)
            pool = concatenate(pool, others)
        positives = Positives(
            query_RD=out["user"][positive_B],
            item_RD=out["pin"][positive_B],
            item_id_R=pin_B[positive_B],
            user_id_R=user_B[positive_B],
            log_q_R=self._log_q(pin_B[positive_B], sizes),
        )
        rows = sum_over_ranks(positive_B.sum()).clamp(min=1)
        each_R: Tensor = self.softmax(positives, pool)
        return each_R.sum() / rows

    def _random_pins(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Embeddings_ME and ids_M of the Pins drawn beside the rows of all ranks, counted."""
        if self.random_sketch is None:
            return None
        pins = {k.removeprefix(RANDOM): v for k, v in batch.items() if k.startswith(RANDOM)}
        id_M = gather(pins["key:pin"])
        if self.training:
            self.random_sketch.update(id_M)
        return gather_with_gradient(self.model.embed("pin", pins)), id_M

    def _log_q(self, pin_N: Tensor, sizes: tuple[int, int]) -> Tensor:
        """Log Q of Pins in a pool of `sizes` entries of the batch, and random ones."""
        exact = self.loss.q_estimator == "exact"
        estimate = log_q_exact if exact else log_q_linear
        sketch, other = self.sketch, self.random_sketch
        log_q_N = estimate(sketch.count(pin_N).clamp(min=1), sketch.total.clamp(min=1), sizes[0])
        if other is None:
            return log_q_N
        random_N = estimate(other.count(pin_N), other.total.clamp(min=1), sizes[1])
        return log_q_of_either(log_q_N, random_N, exact=exact)
