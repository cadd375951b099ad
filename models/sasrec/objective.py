"""What a next-item model is trained for: three losses over the same positions.

Shapes: R positions of all sequences together, N negatives, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.nn.sampled_softmax import NO_USER, Pool, Positives, SampledSoftmax
from models.protocol import Batch, Objective
from models.sasrec.config import SasRecConfig
from models.sasrec.model import SasRec
from models.training.distributed import sum_over_ranks


def gbce(hit_R: Tensor, miss_RN: Tensor, masked_RN: Tensor, *, catalogue: int, t: float) -> Tensor:
    """The generalised BCE of each position, averaged over its positive and its negatives.

    The positive's probability is raised to beta = a (t (1 - 1 / a) + 1 / a), a the share of the
    other items that is drawn: t = 0 is plain BCE, and t = 1 as calibrated as a full softmax.

    Args:
        masked_RN: negatives that are the position's positive; they add nothing.
        catalogue: number of items.

    Source: gSASRec, Petrov and Macdonald 2023 (arXiv 2308.07192), equations 10 to 12.
    Deviations: none; - log(sigmoid(s) ** beta) is computed as beta softplus(- s).
    """
    drawn = miss_RN.shape[1]
    share = drawn / (catalogue - 1)
    beta = share * (t * (1 - 1 / share) + 1 / share)
    misses_R = functional.softplus(miss_RN).masked_fill(masked_RN, 0.0).sum(dim=1)
    return (beta * functional.softplus(-hit_R) + misses_R) / (1 + drawn)


class SasRecObjective(Objective):
    """Every position predicts the item that followed.

    A batch has `key:user` [U], `length` [U], `item` [R] and `next` [R] (the item that followed),
    and `negative` [N] or, for BCE, [R].

    Source: SASRec (arXiv 1808.09781), section III.E; gSASRec (arXiv 2308.07192); the
    sampled softmax of Klenitskiy and Vasilev 2023 (arXiv 2309.07602).
    Deviations: gBCE and softmax share their negatives between the positions of a batch, which is
    one matrix product; their publications draw some for each position. Negatives are uniform, so
    that the softmax needs no correction.
    """

    def __init__(self, model: SasRec, config: SasRecConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        # The scale is the item vectors' own: the temperature stays 1.
        self.softmax = SampledSoftmax(temperature=1.0, in_blocks=True).requires_grad_(False)
        self.tasks, self.losses = (), ("total",)
        self.every_parameter_learns = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This rank's part of the mean loss of a position."""
        query_RD = self.model(batch["item"], batch["length"]).float()
        weight = self.model.items.weight
        hit_RD, negative = weight[batch["next"]], batch["negative"]
        with torch.autocast(query_RD.device.type, enabled=False):
            each_R = self._losses(query_RD, hit_RD, batch["next"], negative)
        rows = sum_over_ranks(torch.tensor(len(each_R), device=each_R.device)).clamp(min=1)
        return {"total": each_R.sum() / rows}

    def _losses(self, query_RD: Tensor, hit_RD: Tensor, next_R: Tensor, negative: Tensor) -> Tensor:
        if self.config.loss == "softmax":
            return self._softmax(query_RD, hit_RD, next_R, negative)
        hit_R = (query_RD * hit_RD).sum(dim=1)
        miss_xD = self.model.items.weight[negative]
        if self.config.loss == "bce":
            miss_R = (query_RD * miss_xD).sum(dim=1)
            miss_R = miss_R.masked_fill(negative == next_R, -torch.inf)
            return functional.softplus(-hit_R) + functional.softplus(miss_R)
        masked_RN = negative[None] == next_R[:, None]
        catalogue, t = self.model.num_items, self.config.gbce_t
        return gbce(hit_R, query_RD @ miss_xD.T, masked_RN, catalogue=catalogue, t=t)

    def _softmax(
        self, query_RD: Tensor, hit_RD: Tensor, next_R: Tensor, negative_N: Tensor
    ) -> Tensor:
        nobody_R = torch.full_like(next_R, NO_USER - 1)
        positives = Positives(
            query_RD=query_RD,
            item_RD=hit_RD,
            item_id_R=next_R,
            user_id_R=nobody_R,
            log_q_R=query_RD.new_zeros(len(next_R)),
        )
        pool = Pool(
            item_PD=self.model.items.weight[negative_N],
            item_id_P=negative_N,
            user_id_P=torch.full_like(negative_N, NO_USER),
            log_q_P=query_RD.new_zeros(len(negative_N)),
        )
        each_R: Tensor = self.softmax(positives, pool)
        return each_R
