"""Declared features of one scope side by side: a handful of products, however many features.

Shapes: B rows, C categorical features, F numeric features, L lists, T positions of all lists
together, W width of the table, O outputs.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.datasets import Feature
from models.nn.config import SequenceConfig
from models.nn.scopes import columns, sequence_groups
from models.nn.tokens import NumericNormalizer, NumericRange, SequenceToken
from models.protocol import Batch

_INITIAL_STD = 0.3


class BlockSizes(Protocol):
    """The widths that a block asks a ranker's configuration for."""

    @property
    def categorical_dim(self) -> int:
        """Of categorical tables."""

    @property
    def sequence(self) -> SequenceConfig:
        """How sequences are encoded."""

    @property
    def sequence_dim(self) -> int:
        """What is left of a sequence."""


class SharedTable(nn.Module):
    """The tables of several categorical features and lists as one, looked up at once.

    A categorical feature is its row; a list is the mean of its rows, and id 0 pads it. In a
    categorical feature id 0 (missing) has a learned row too.

    Args:
        categorical, lists: features of those kinds; at least one in all.
        width: W.

    Source: embedding lookup of every categorical feature (DERM, figure 1).
    Deviations: hashed ids instead of a min-count vocabulary.
    """

    start_C: Tensor
    start_T: Tensor
    of_list_TL: Tensor

    def __init__(
        self, categorical: Sequence[Feature], lists: Sequence[Feature], width: int
    ) -> None:
        super().__init__()
        features = (*categorical, *lists)
        ends = list(accumulate(f.cardinality for f in features))
        starts = [0, *ends[:-1]]
        self.categorical = tuple(f.name for f in categorical)
        self.lists = tuple(f.name for f in lists)
        self.table = nn.Embedding(ends[-1], width)
        with torch.no_grad():
            self.table.weight.mul_(_INITIAL_STD)
        lengths = torch.tensor([f.max_len for f in lists], dtype=torch.long)
        first = torch.tensor(starts, dtype=torch.long)
        owner_T = torch.arange(len(lists)).repeat_interleave(lengths)
        self.register_buffer("start_C", first[: len(categorical)], persistent=False)
        self.register_buffer("start_T", first[len(categorical) :][owner_T], persistent=False)
        of_list_TL = functional.one_hot(owner_T, len(lists)).float() if lists else torch.empty(0, 0)
        self.register_buffer("of_list_TL", of_list_TL, persistent=False)
        self.out_dim = width * len(features)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BO, O = W (C + L)."""
        parts: list[Tensor] = []
        if self.categorical:
            parts.append(self.table(columns(batch, self.categorical) + self.start_C).flatten(1))
        if self.lists:
            id_BT = torch.cat([batch[name] for name in self.lists], dim=1)
            valid_BT = (id_BT > 0).float()
            found_BTW = self.table(id_BT + self.start_T) * valid_BT[:, :, None]
            sum_BLW = torch.einsum("btw,tl->blw", found_BTW, self.of_list_TL)
            length_BL = (valid_BT @ self.of_list_TL).clamp(min=1)
            parts.append((sum_BLW / length_BL[:, :, None]).flatten(1))
        return torch.cat(parts, dim=1)


class ScopeBlock(nn.Module):
    """The features of one scope, concatenated: categorical, numeric, sequences, vectors.

    Source: DERM (arXiv 2509.04337), section 3.2, concatenation layer.
    Deviations: numeric features are normalised as upstream, and whether each is missing stands
    beside it.
    """

    def __init__(self, features: Sequence[Feature], config: BlockSizes) -> None:
        super().__init__()

        def of(kind: str) -> tuple[Feature, ...]:
            return tuple(f for f in features if f.kind == kind)

        self.numeric = tuple(f.name for f in of("numeric"))
        self.dense = tuple(f.name for f in of("embedding"))
        self.sequences = sequence_groups(features)
        width = config.categorical_dim
        looked_up = of("categorical"), of("list")
        self.table = SharedTable(*looked_up, width) if any(looked_up) else None
        self.normalize = NumericNormalizer(len(self.numeric))
        self.norms = nn.ModuleList(nn.LayerNorm(f.dim) for f in of("embedding"))
        self.encoders = nn.ModuleList(
            SequenceToken(
                tuple(f.cardinality for f in group),
                group[0].max_len,
                width,
                config.sequence_dim,
                config.sequence,
            )
            for group in self.sequences
        )
        self.out_dim = (
            (self.table.out_dim if self.table else 0)
            + 2 * len(self.numeric)
            + sum(f.dim for f in of("embedding"))
            + config.sequence_dim * len(self.sequences)
        )

    def fit(self, ranges: Mapping[str, NumericRange], sample: Batch) -> None:
        """Take over the ranges of the numeric features, and their spread in a sample of rows."""
        if self.numeric:
            self.normalize.fit([ranges[name] for name in self.numeric])
            self.normalize.fit_spread(columns(sample, self.numeric))

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BO."""
        parts: list[Tensor] = []
        if self.table is not None:
            parts.append(self.table(batch))
        if self.numeric:
            x_BF = columns(batch, self.numeric)
            parts += [self.normalize(x_BF), torch.isnan(x_BF).to(x_BF.dtype)]
        parts += [
            cast("nn.LayerNorm", norm)(batch[name])
            for name, norm in zip(self.dense, self.norms, strict=True)
        ]
        parts += [
            encoder([batch[f.name] for f in group])
            for group, encoder in zip(self.sequences, self.encoders, strict=True)
        ]
        return torch.cat(parts, dim=1)
