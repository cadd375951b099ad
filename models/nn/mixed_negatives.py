"""Negatives from the batch and drawn beside it, in one pool, and how likely each of them is there.

Shapes: Q queries of this rank, G those of all ranks, N drawn items of all ranks, P entries of a
pool, D width.
"""

import torch
from torch import Tensor, nn

from models.nn.config import NegativesConfig
from models.nn.count_min import CountMinSketch
from models.nn.sampled_softmax import NO_USER, Pool, concatenate, log_q_linear, log_q_of_either

# One key of a (user, item) pair, as released with OmniSearchSage.
_PAIR = 17


class SamplingProbability(nn.Module):
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

    def of_users(self, item_Q: Tensor, user_Q: Tensor, size: int) -> Tensor:
        """Log Q of the users that items are asked for, in a pool of so many: as of positives."""
        kind = self.config.positive_q if self.config.correct else "none"
        if kind == "none":
            return torch.zeros(len(user_Q), device=user_Q.device)
        if kind == "marginal":
            return self._of_users_marginal(user_Q, size)
        pairs = self.pair.count(item_Q + _PAIR * user_Q).clamp(min=1)
        return (pairs.log() - self.item.count(item_Q).clamp(min=1).log()).float()

    def users(self, user_GD: Tensor, user_G: Tensor, item_G: Tensor) -> Pool:
        """Users of the positives of all ranks as negatives of an item, as many as of items."""
        size = min(self.config.max_in_batch, len(user_G))
        kept = torch.randperm(len(user_G), device=user_G.device)[:size]
        user_P = user_G[kept]
        return Pool(
            item_PD=user_GD[kept],
            item_id_P=user_P,
            user_id_P=item_G[kept],
            log_q_P=self._of_users_marginal(user_P, size),
        )

    def _of_users_marginal(self, user_P: Tensor, size: int) -> Tensor:
        if not self.config.correct:
            return torch.zeros(len(user_P), device=user_P.device)
        counts = self.user.count(user_P).clamp(min=1)
        return log_q_linear(counts, self.user.total.clamp(min=1), size)

    def sizes(self, in_batch: int, drawn: int) -> tuple[int, int]:
        """How many entries of the pool come from a batch of so many, and from so many drawn."""
        of_batch = min(self.config.max_in_batch, in_batch) if self._uses("in_batch") else 0
        return of_batch, drawn if self._uses("random") else 0

    def pool(
        self, in_batch: tuple[Tensor, Tensor, Tensor], drawn: tuple[Tensor, Tensor] | None
    ) -> Pool:
        """The negatives of a step, the same on every rank: the step's seed is.

        Args:
            in_batch: item_GD, item_G and user_G of the positives of all ranks.
            drawn: item_ND and item_N; None where the pool has none of them.
        """
        item_GD, item_G, user_G = in_batch
        sizes = self.sizes(len(item_G), 0 if drawn is None else len(drawn[1]))
        kept = torch.randperm(len(item_G), device=item_G.device)[: sizes[0]]
        parts = []
        if self._uses("in_batch"):
            item_P = item_G[kept]
            parts.append(
                Pool(
                    item_PD=item_GD[kept],
                    item_id_P=item_P,
                    user_id_P=user_G[kept],
                    log_q_P=self.of_negatives(item_P, sizes, source=0),
                )
            )
        if self._uses("random") and drawn is not None:
            item_ND, item_N = drawn
            parts.append(
                Pool(
                    item_PD=item_ND,
                    item_id_P=item_N,
                    user_id_P=torch.full_like(item_N, NO_USER),
                    log_q_P=self.of_negatives(item_N, sizes, source=1),
                )
            )
        return parts[0] if len(parts) == 1 else concatenate(*parts)

    def _uses(self, source: str) -> bool:
        return self.config.pool in (source, "mixed")
