"""A vector for every id, without a list of ids: ids are hashed into the rows of a table.

Shapes: N ids, H hashes, R rows, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.nn.config import IdTableConfig
from models.nn.hashing import row_of

DEFAULT_ROW = 0
_BLOCK = 65_536


class IdRows(nn.Module):
    """Which rows ids read: their own once they were counted often enough, a learned one until then.

    How often an id was counted is known from the counters of its rows, the smallest of them: never
    less than the truth (they are a count-min sketch as wide as the table).

    Source: Multi-Faceted Large Embedding Tables (arXiv 2508.05700), as far as public: tables of
    hashed user and Pin ids. Two hashes: hash embeddings, Svenstrup et al. 2017, without weights.
    Deviations: minimum count and default row are this project's.
    """

    weight: Tensor
    count_R: Tensor

    def __init__(self, config: IdTableConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("count_R", torch.zeros(config.rows, dtype=torch.int32))

    def rows_of(self, key_N: Tensor) -> Tensor:
        """The row_HN of ids, whether or not they are known yet."""
        rows, hashes = self.config.rows, self.config.hashes
        return torch.stack([row_of(key_N, rows, salt=salt) for salt in range(hashes)])

    def counted(self, key_N: Tensor) -> Tensor:
        """The count_N of ids, or more."""
        return self.count_R[self.rows_of(key_N)].amin(dim=0)

    def known(self, key_N: Tensor) -> Tensor:
        """Whether each id has a row of its own, bool [N]."""
        return self.counted(key_N) >= self.config.min_count

    @torch.no_grad()
    def count(self, key_N: Tensor) -> None:
        """Count ids, repeated ones as often as they occur; on several ranks those of all."""
        row_M = self.rows_of(key_N).flatten()
        self.count_R.index_add_(0, row_M, torch.ones_like(row_M, dtype=torch.int32))

    def forward(self, key_N: Tensor) -> Tensor:
        """The x_ND of ids; that of the default row where they are not known."""
        row_HN = self.rows_of(key_N)
        known_N = self.count_R[row_HN].amin(dim=0) >= self.config.min_count
        return self.look_up(torch.where(known_N, row_HN, DEFAULT_ROW)).sum(dim=0)

    def look_up(self, row_HN: Tensor) -> Tensor:
        """The vectors of rows, [H, N, D]."""
        raise NotImplementedError


class IdTable(IdRows):
    """All rows in one place; gradients are sparse.

    Args:
        trained: False leaves the rows as they are: a buffer, which no optimizer sees. The state of
            the optimizer lies beside the rows of one that is trained (`sum_R`, a number per row).

    Source: as `IdRows`.
    Deviations: none.
    """

    def __init__(self, config: IdTableConfig, *, trained: bool = True) -> None:
        super().__init__(config)
        start_RD = torch.cat([block for _, block in starting_rows(config)])
        if trained:
            self.weight = nn.Parameter(start_RD)
            self.register_buffer("sum_R", torch.zeros(config.rows))
        else:
            self.register_buffer("weight", start_RD)

    def look_up(self, row_HN: Tensor) -> Tensor:
        """The vectors of rows, [H, N, D]."""
        return functional.embedding(row_HN, self.weight, sparse=self.weight.requires_grad)


def starting_rows(config: IdTableConfig) -> Iterator[tuple[int, Tensor]]:
    """The rows that a table begins with, of norms about 1, by where they begin."""
    for first in range(0, config.rows, _BLOCK):
        count = min(_BLOCK, config.rows - first)
        yield first, torch.randn(count, config.dim) / config.dim**0.5
