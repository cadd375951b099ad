"""What PinnerFormer is trained for: each chosen row against its target, and a pool of negatives.

Shapes: Q pairs of this rank, G pairs of all ranks, P distinct Pins, N drawn Pins of all ranks, D
embedding width.
"""

import torch
from torch import Tensor

from feature_store.contracts.base import Entity
from models.nn.mixed_negatives import SamplingProbability
from models.nn.sampled_softmax import Positives, SampledSoftmax
from models.pinnerformer.config import PinnerFormerConfig
from models.pinnerformer.model import PinnerFormer
from models.protocol import Batch, Metric, Objective
from models.training.distributed import gather, gather_with_gradient, sum_over_ranks
from models.training.pair_metrics import PairMetrics

TASK = "positive"


class PinnerFormerObjective(Objective):
    """The model and its loss; users weigh the same, however many pairs they have.

    Source: PinnerFormer (arXiv 2205.04507), sections 3.3 and 3.4, appendix A.3; Q from count-min
    sketches as released with OmniSearchSage.
    Deviations: the logits of a large pool are computed in blocks. Counts fade from day to day.
    """

    def __init__(self, model: PinnerFormer, config: PinnerFormerConfig) -> None:
        super().__init__()
        self.model, self.config = model, config.negatives
        self.softmax = SampledSoftmax(self.config.temperature, in_blocks=True)
        self.sampling = SamplingProbability(self.config)
        self.tasks, self.losses = (TASK,), ("total",)
        # A part of an action that is left out has no gradient.
        self.every_parameter_learns = not config.without

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This rank's part of the loss; in training mode, what it sees is counted first."""
        query_QD, item_QD = self._pairs(batch)
        item_Q, user_Q = batch["key:pin"][batch["target"]], batch["pair:user"]
        item_G, user_G = gather(item_Q), gather(user_Q)
        drawn_N = gather(batch.get("random:key:pin", item_Q[:0]))
        if self.training:
            self.sampling.count(item_G, user_G, drawn_N)
        sizes = self.sampling.sizes(len(item_G), len(drawn_N))
        positives = Positives(
            query_RD=query_QD,
            item_RD=item_QD,
            item_id_R=item_Q,
            user_id_R=user_Q,
            log_q_R=self.sampling.of_positives(item_Q, user_Q, sizes),
        )
        drawn = None
        if self.config.pool != "in_batch":
            drawn = (gather_with_gradient(self.model.pins(batch["random:content"])), drawn_N)
        pool = self.sampling.pool((gather_with_gradient(item_QD), item_G, user_G), drawn)
        each_Q = self.softmax(positives, pool)
        weight_Q = _user_equal(batch["weight"], user_Q)
        return {"total": (weight_Q * each_Q).sum() / sum_over_ranks(weight_Q.sum()).clamp(min=1e-9)}

    def begin_day(self) -> None:
        """Let what was counted on the days before weigh less than what the new one brings."""
        self.sampling.fade()

    def predict(self, batch: Batch) -> Tensor:
        """Logits [2 Q, 1]: of every pair, then of every row with a Pin drawn uniformly."""
        query_QD, item_QD = self._pairs(batch)
        drawn_QD = self.model.pins(batch["content"][batch["negative"]])
        scores = torch.cat([(query_QD * item_QD).sum(1), (query_QD * drawn_QD).sum(1)])
        return (scores * self.softmax.scale())[:, None]

    def targets(self, batch: Batch) -> Tensor:
        """Ones, then zeros [2 Q, 1]."""
        ones_Q = torch.ones(len(batch["row"]), device=batch["row"].device)
        return torch.cat([ones_Q, 0 * ones_Q])[:, None]

    def metrics(self) -> dict[str, Metric]:
        """How well targets are told from Pins drawn uniformly, and how precisely that is known."""
        return {TASK: PairMetrics()}

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UD of users, or the embedding_PD of Pins."""
        return self.model.users(batch) if entity == "user" else self.model.pins(batch["content"])

    def numbers(self) -> dict[str, float]:
        """The temperature of the softmax."""
        return {"temperature": 1 / self.softmax.scale().item()}

    def _pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The query_QD and the item_QD of every pair."""
        query_QD = self.model(batch)[batch["row"]]
        return query_QD, self.model.pins(batch["content"][batch["target"]])


def _user_equal(weight_Q: Tensor, user_Q: Tensor) -> Tensor:
    """Weights that add up to 1 for every user of this rank."""
    _, at_Q = torch.unique(user_Q, return_inverse=True)
    total_U = weight_Q.new_zeros(int(at_Q.max()) + 1 if len(at_Q) else 0)
    return weight_Q / total_U.index_add_(0, at_Q, weight_Q)[at_Q]
