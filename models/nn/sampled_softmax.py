"""Softmax over sampled negatives, corrected for how they were sampled.

Shapes: R queries with one positive each, P pool of negatives, D width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nn.pooled import pooled_logsumexp

MIN_TEMPERATURE = 0.01
NO_USER = -1
_MIN_Q = 1e-16


@dataclass(frozen=True, kw_only=True, slots=True)
class Positives:
    """Queries and the item each one engaged with.

    Attributes:
        query_RD, item_RD: their vectors.
        item_id_R, user_id_R: int64 ids, for masking.
        log_q_R: log of how likely the item is sampled.
    """

    query_RD: Tensor
    item_RD: Tensor
    item_id_R: Tensor
    user_id_R: Tensor
    log_q_R: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Candidates for negatives.

    Attributes:
        item_PD: their vectors.
        item_id_P: int64 ids.
        user_id_P: the user for whom the entry is a positive, NO_USER where it is none.
        log_q_P: log of how likely the item is sampled.
        distinct: an item counts once, however often it was drawn, and not at all for a query for
            which any of its entries is masked.
    """

    item_PD: Tensor
    item_id_P: Tensor
    user_id_P: Tensor
    log_q_P: Tensor
    distinct: bool = False


class SampledSoftmax(nn.Module):
    """Cross-entropy of the positive against a pool, with a trainable, bounded temperature.

    Args:
        temperature: initial; it cannot fall below 0.01.
        in_blocks: never hold the logits of all queries against the whole pool: each is computed
            twice, and memory grows with queries + pool instead of their product. Not for pools
            whose items count once.

    Source: PinnerFormer (arXiv 2205.04507), section 3.3 and appendix A.3; logQ correction of Yi
    et al. 2019; Pinterest's OmniSearchSage.
    Deviations: returns the loss of each row, so that the caller chooses weights and the
    normaliser across ranks.
    """

    def __init__(self, temperature: float = 0.07, *, in_blocks: bool = False) -> None:
        super().__init__()
        self.in_blocks = in_blocks
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def scale(self) -> Tensor:
        """1 / temperature, clamped; the clamp changes the parameter itself."""
        with torch.no_grad():
            self.log_scale.clamp_(max=-math.log(MIN_TEMPERATURE))
        return self.log_scale.exp()

    def forward(self, positives: Positives, pool: Pool) -> Tensor:
        """The loss_R of each query; 0 where no negative is left.

        An entry of the pool is masked where it is the positive's own item, or an item that is a
        positive of the same user.
        """
        with torch.autocast(positives.query_RD.device.type, enabled=False):
            scale = self.scale().float()
            query_RD = positives.query_RD.float()
            hit_R = (query_RD * positives.item_RD.float()).sum(1) * scale
            hit_R = hit_R - positives.log_q_R.detach()
            if self.in_blocks:
                return self._in_blocks(query_RD * scale, hit_R, positives, pool)
            miss_RP = query_RD @ pool.item_PD.float().T * scale - pool.log_q_P.detach()[None]
            masked_RP = (positives.item_id_R[:, None] == pool.item_id_P[None]) | (
                positives.user_id_R[:, None] == pool.user_id_P[None]
            )
            if pool.distinct:
                masked_RP = _all_but_one(masked_RP, pool.item_id_P)
            miss_RP = miss_RP.masked_fill(masked_RP, -math.inf)
            logits = torch.cat([hit_R[:, None], miss_RP], dim=1)
            return torch.logsumexp(logits, dim=1) - hit_R

    def _in_blocks(
        self, query_RD: Tensor, hit_R: Tensor, positives: Positives, pool: Pool
    ) -> Tensor:
        if pool.distinct:
            raise ValueError(
                "in_blocks: expected a pool that keeps duplicates, found a distinct one"
            )
        ids = (positives.item_id_R, positives.user_id_R, pool.item_id_P, pool.user_id_P)
        miss_R = pooled_logsumexp(query_RD, pool.item_PD.float(), pool.log_q_P.detach(), ids)
        return torch.logaddexp(hit_R, miss_R) - hit_R


def _all_but_one(masked_RP: Tensor, item_id_P: Tensor) -> Tensor:
    """Mask the first entry of an item where any of its entries is masked, and all others."""
    same_PP = item_id_P[:, None] == item_id_P[None]
    any_RP = masked_RP.float() @ same_PP.float() > 0
    return any_RP | same_PP.tril(-1).any(dim=1)


def concatenate(first: Pool, second: Pool) -> Pool:
    """One pool of two sources, for example in-batch and random negatives."""
    return Pool(
        item_PD=torch.cat([first.item_PD, second.item_PD]),
        item_id_P=torch.cat([first.item_id_P, second.item_id_P]),
        user_id_P=torch.cat([first.user_id_P, second.user_id_P]),
        log_q_P=torch.cat([first.log_q_P, second.log_q_P]),
        distinct=first.distinct or second.distinct,
    )


def log_q_linear(count_N: Tensor, total: Tensor, pool_size: int) -> Tensor:
    """Log Q of items in a pool that keeps duplicates: expected occurrences, linearised.

    Source: OmniSearchSage: log C(n) - log C_total + log m.
    """
    return torch.log(count_N.float()) - torch.log(total.float()) + math.log(max(pool_size, 1))


def log_q_exact(count_N: Tensor, total: Tensor, pool_size: int) -> Tensor:
    """Log Q of items in a deduplicated pool: 1 - (1 - C / C_total)^m, in float64.

    Source: InteractRank; counters must be fed with ids before deduplication.
    """
    share_N = count_N.double() / total.double()
    return torch.log((1 - (1 - share_N) ** pool_size).clamp(min=_MIN_Q)).float()


def log_q_of_either(first_N: Tensor, second_N: Tensor, *, exact: bool) -> Tensor:
    """Log Q of items that two sources of a pool may bring, from log Q of each source.

    Expected occurrences add up; of probabilities, Q = Q1 + (1 - Q1) Q2.

    Source: mixed negative sampling, Yang et al. 2020.
    """
    if exact:
        second_N = second_N + torch.log1p(-first_N.exp().clamp(max=1))
    return torch.logaddexp(first_N, second_N)
