"""How often was an id seen lately: counters of fixed size that fade.

Shapes: N ids, R hash rows, W counters per row.
"""

import numpy as np
import torch
from torch import Tensor, nn

_MERSENNE = 2**31 - 1


class CountMinSketch(nn.Module):
    """Estimates faded counts from above: never less than the true one.

    `fade` makes what was counted so far weigh less than what follows, so that a share follows ids
    that come and go. Counters are buffers: they travel with the checkpoint and take no gradient.
    Every rank must see the same ids in the same order; gather them first.

    Args:
        depth: R.
        width: W.
        seed: of the hash multipliers, the same on every rank.

    Source: Cormode and Muthukrishnan 2005; multiply-shift hash as in Pinterest's OmniSearchSage.
    Deviations: multipliers are odd; counters fade. They are float64: one more is exact up to 2^53,
    and equal steps add up to the same bits in any order.
    """

    multipliers_R: Tensor
    counts_RW: Tensor
    total: Tensor

    def __init__(self, depth: int = 2, width: int = 2**14, *, seed: int = 17) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        odd = random.integers(1, 2**63, size=depth, dtype=np.int64) | 1
        self.width = width
        self.register_buffer("multipliers_R", torch.from_numpy(odd))
        self.register_buffer("counts_RW", torch.zeros(depth, width, dtype=torch.float64))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, ids_N: Tensor) -> None:
        """Count every id in ids_N, repeated ones as often as they occur."""
        ones_N = torch.ones(len(ids_N), dtype=torch.float64, device=ids_N.device)
        for row, slots_N in enumerate(self._slots(ids_N)):
            self.counts_RW[row].index_add_(0, slots_N, ones_N)
        self.total += len(ids_N)

    @torch.no_grad()
    def fade(self, keep: float) -> None:
        """Let everything counted so far weigh `keep` of what it did."""
        self.counts_RW *= keep
        self.total *= keep

    @torch.no_grad()
    def count(self, ids_N: Tensor) -> Tensor:
        """The estimated count_N of each id."""
        return self.counts_RW.gather(1, self._slots(ids_N)).amin(dim=0)

    def _slots(self, ids_N: Tensor) -> Tensor:
        hashed_RN = ids_N[None, :] * self.multipliers_R[:, None]
        hashed_RN = (hashed_RN + (hashed_RN >> 32)) & _MERSENNE
        return hashed_RN % self.width
