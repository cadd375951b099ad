"""What PinnerFormer is trained for: each chosen row against its target, and a pool of negatives.

Shapes: Q pairs of this rank, G pairs of all ranks, P distinct Pins, N drawn Pins of all ranks, D
embedding width.
"""

import torch
from torch import Tensor

from feature_store.contracts.base import Entity
from models.nn.count_min import CountMinSketch
from models.nn.sampled_softmax import (
    NO_USER,
    Pool,
    Positives,
    SampledSoftmax,
    concatenate,
    log_q_linear,
    log_q_of_either,
)
from models.pinnerformer.config import NegativesConfig, PinnerFormerConfig
from models.pinnerformer.model import PinnerFormer
from models.protocol import Batch, Metric, Objective
from models.training.distributed import gather, gather_with_gradient, sum_over_ranks
from models.training.pair_metrics import PairMetrics

# One key of a (user, Pin) pair, as released with OmniSearchSage.
_PAIR = 17
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
        pools = self._pools(batch, gather_with_gradient(item_QD), item_G, user_G, drawn_N)
        positives = Positives(
            query_RD=query_QD,
            item_RD=item_QD,
            item_id_R=item_Q,
            user_id_R=user_Q,
            log_q_R=self.sampling.of_positives(item_Q, user_Q, (_size(pools[0]), _size(pools[1]))),
        )
        first, second = pools
        pool = first if second is None else second if first is None else concatenate(first, second)
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

    def _pools(
        self, batch: Batch, item_GD: Tensor, item_G: Tensor, user_G: Tensor, drawn_N: Tensor
    ) -> tuple[Pool | None, Pool | None]:
        """Targets of all ranks, and Pins drawn for all ranks."""
        size = min(self.config.max_in_batch, len(item_G)) if self._uses("in_batch") else 0
        # The same on every rank: the step's seed is.
        kept = torch.randperm(len(item_G), device=item_G.device)[:size]
        drawn = len(drawn_N) if self._uses("random") else 0
        sizes = (size, drawn)
        first = second = None
        if self._uses("in_batch"):
            log_q = self.sampling.of_negatives(item_G[kept], sizes, source=0)
            first = Pool(
                item_PD=item_GD[kept],
                item_id_P=item_G[kept],
                user_id_P=user_G[kept],
                log_q_P=log_q,
            )
        if self._uses("random"):
            item_ND = gather_with_gradient(self.model.pins(batch["random:content"]))
            second = Pool(
                item_PD=item_ND,
                item_id_P=drawn_N,
                user_id_P=torch.full_like(drawn_N, NO_USER),
                log_q_P=self.sampling.of_negatives(drawn_N, sizes, source=1),
            )
        return first, second

    def _uses(self, source: str) -> bool:
        return self.config.pool in (source, "mixed")


class SamplingProbability(torch.nn.Module):
    """Log Q of what is in the pool, and of positives, from faded counts.

    Source: OmniSearchSage (counts by source, totals summed, m the size of the whole pool); mixed
    negative sampling, Yang et al. 2020 (`mixture`).
    Deviations: none.
    """

    def __init__(self, config: NegativesConfig) -> None:
        super().__init__()
        self.config = config
        self.item, self.drawn, self.pair, self.user = (
            CountMinSketch(config.sketch_depth, config.sketch_width) for _ in range(4)
        )

    def count(self, item_G: Tensor, user_G: Tensor, drawn_N: Tensor) -> None:
        """Count the targets, their users and the drawn Pins of all ranks."""
        self.item.update(item_G)
        self.user.update(user_G)
        self.pair.update(item_G + _PAIR * user_G)
        self.drawn.update(drawn_N)

    def fade(self) -> None:
        """Let what was counted so far weigh less."""
        for sketch in (self.item, self.drawn, self.pair, self.user):
            sketch.fade(self.config.sketch_keep)

    def of_negatives(self, item_P: Tensor, sizes: tuple[int, int], *, source: int) -> Tensor:
        """Log Q of entries that came from the batch (0) or were drawn (1).

        Args:
            sizes: entries of either source in the pool.
        """
        if not self.config.correct:
            return torch.zeros(len(item_P), device=item_P.device)
        if self.config.q_mode == "mixture":
            parts = [
                log_q_linear(sketch.count(item_P), sketch.total.clamp(min=1), size)
                for sketch, size in zip((self.item, self.drawn), sizes, strict=True)
                if size
            ]
            return parts[0] if len(parts) == 1 else log_q_of_either(*parts, exact=False)
        used = [s for s, size in zip((self.item, self.drawn), sizes, strict=True) if size]
        total = torch.stack([s.total for s in used]).sum() if used else self.item.total
        counts = (self.item, self.drawn)[source].count(item_P).clamp(min=1)
        return log_q_linear(counts, total.clamp(min=1), sum(sizes))

    def of_positives(self, item_Q: Tensor, user_Q: Tensor, sizes: tuple[int, int]) -> Tensor:
        """Log Q of the positives: how often their user has them, or as if they were negatives."""
        kind = self.config.positive_q if self.config.correct else "none"
        if kind == "none":
            return torch.zeros(len(item_Q), device=item_Q.device)
        if kind == "marginal":
            return self.of_negatives(item_Q, sizes, source=0)
        pairs = self.pair.count(item_Q + _PAIR * user_Q).clamp(min=1)
        return (pairs.log() - self.user.count(user_Q).clamp(min=1).log()).float()


def _size(pool: Pool | None) -> int:
    return 0 if pool is None else len(pool.item_id_P)


def _user_equal(weight_Q: Tensor, user_Q: Tensor) -> Tensor:
    """Weights that add up to 1 for every user of this rank."""
    _, at_Q = torch.unique(user_Q, return_inverse=True)
    total_U = weight_Q.new_zeros(int(at_Q.max()) + 1 if len(at_Q) else 0)
    return weight_Q / total_U.index_add_(0, at_Q, weight_Q)[at_Q]
