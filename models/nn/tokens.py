"""Feature groups as tokens: whatever a group is, it leaves as one vector of width D.

Shapes: B rows, F numeric features, T list or sequence positions, G parallel sequences,
E width of an embedding, D token width.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nn.config import SequenceConfig
from models.nn.mlp import MLP
from models.nn.time_encoding import DAY_S, TimeEncoding
from models.nn.transformer import Padding, SequenceEncoder

_MIN_STD = 1e-6
_LOG_RANGE = 2.0
# The waves of a scalar in [-1, 1]: the slowest one turns half a circle from end to end.
_SCALAR_WAVES = 4
_INITIAL_STD = 0.3
_EPOCH_PERIODS_S = (DAY_S / 4, DAY_S / 2, DAY_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericRange:
    """What the first window says about a numeric feature."""

    minimum: float = 0.0
    maximum: float = 1.0
    std: float = 1.0


class Token(nn.Module):
    """Linear, then LayerNorm: the end of every token.

    The Linear has no bias, the LayerNorm has one: beside it, an input that starts small would be
    drowned, every token would start out alike, and so would all embeddings.

    Source: DHEN (arXiv 2203.11014), section 3.1: every feature becomes a D-wide row of X.
    Deviations: none.
    """

    def __init__(self, in_dim: int, token_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, token_dim, bias=False)
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, x_BE: Tensor) -> Tensor:
        """Map x_BE to out_BD."""
        out_BD: Tensor = self.norm(self.linear(x_BE))
        return out_BD


class NumericNormalizer(nn.Module):
    """Clip to the fitted range, log(1 + x) where it is wide, then standardise and tame.

    Ranges and spreads are fitted once, on the first window, and live in the snapshot. A smoothed
    rate lies within thousandths of everybody's while a count fills its range: after dividing by
    the spread that each has among rows, both are heard. asinh keeps what lies within a spread or
    two as it is and grows like a logarithm beyond. A feature that did not vary (std < 1e-6) is
    dropped: it reads 0. NaN (missing) reads 0, which is the mean.

    Args:
        num_features: F.

    Source: Pinterest's InteractRank, continuous features.
    Deviations: one fixed transform instead of a learned mixture of three: its BatchNorm would make
    a row depend on others.
    """

    minimum_F: Tensor
    maximum_F: Tensor
    kept_F: Tensor
    mean_F: Tensor
    std_F: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("minimum_F", torch.zeros(num_features))
        self.register_buffer("maximum_F", torch.ones(num_features))
        self.register_buffer("kept_F", torch.ones(num_features, dtype=torch.bool))
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("std_F", torch.ones(num_features))

    def fit(self, ranges: list[NumericRange]) -> None:
        """Take over the ranges, in the order of the features."""
        self.minimum_F.copy_(torch.tensor([r.minimum for r in ranges]))
        self.maximum_F.copy_(torch.tensor([r.maximum for r in ranges]))
        self.kept_F.copy_(torch.tensor([r.std >= _MIN_STD for r in ranges]))

    def fit_spread(self, x_NF: Tensor) -> None:
        """Take over mean and spread of rows x_NF, NaN apart, after the ranges."""
        scaled_NF = self._scale(x_NF).double()
        mean_F = scaled_NF.nanmean(dim=0)
        std_F = (scaled_NF - mean_F).square().nanmean(dim=0).sqrt()
        self.kept_F &= std_F >= _MIN_STD  # false where nothing is known
        self.mean_F.copy_(torch.where(self.kept_F, mean_F, 0.0))
        self.std_F.copy_(torch.where(self.kept_F, std_F, 1.0))

    def forward(self, x_BF: Tensor) -> Tensor:
        """Normalise x_BF."""
        out_BF = torch.asinh((self._scale(x_BF) - self.mean_F) / self.std_F)
        return torch.where(self.kept_F & ~torch.isnan(x_BF), out_BF, 0.0)

    def _scale(self, x_BF: Tensor) -> Tensor:
        range_F = self.maximum_F - self.minimum_F
        shifted_BF = torch.clamp(x_BF, self.minimum_F, self.maximum_F) - self.minimum_F
        logged_BF = torch.log1p(shifted_BF) / torch.log1p(range_F)
        return torch.where(range_F > _LOG_RANGE, logged_BF, shifted_BF)


class ScalarToken(nn.Module):
    """One number between -1 and 1 as waves, so that its size survives the LayerNorm.

    A Linear of the number alone would point the same way for .5 and .9, and the LayerNorm would
    leave of it nothing but the sign. The waves are cos and sin of k pi x / 2, k = 1 .. 4: as
    directions, different numbers are different.

    Args:
        token_dim: D.

    Source: PinnerFormer's encoding of times, here of a cosine.
    Deviations: fixed phases and periods.
    """

    turns_K: Tensor

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        turns_K = torch.arange(1, _SCALAR_WAVES + 1) * (math.pi / 2)
        self.register_buffer("turns_K", turns_K, persistent=False)
        self.token = Token(2 * _SCALAR_WAVES, token_dim)

    def forward(self, x_B: Tensor) -> Tensor:
        """Map x_B to out_BD."""
        angle_BK = x_B[:, None] * self.turns_K
        out_BD: Tensor = self.token(torch.cat([torch.cos(angle_BK), torch.sin(angle_BK)], dim=1))
        return out_BD


class NumericToken(nn.Module):
    """A group of numeric features, normalised and merged.

    Args:
        num_features: F.
        token_dim: D.

    Source: groups of same-typed features are merged by a two-layer MLP (InteractRank).
    Deviations: whether a value is missing is an input of its own, since missing reads 0.
    """

    def __init__(self, num_features: int, token_dim: int) -> None:
        super().__init__()
        self.normalize = NumericNormalizer(num_features)
        self.merge = MLP(2 * num_features, (2 * token_dim,), token_dim)
        self.token = Token(token_dim, token_dim)

    def forward(self, x_BF: Tensor) -> Tensor:
        """Map x_BF (NaN where missing) to out_BD."""
        missing_BF = torch.isnan(x_BF).to(x_BF.dtype)
        merged_BD = self.merge(torch.cat([self.normalize(x_BF), missing_BF], dim=-1))
        out_BD: Tensor = self.token(merged_BD)
        return out_BD


def _table(rows: int, dim: int, *, padded: bool = False) -> nn.Embedding:
    """A table that starts small, so that what it learns soon outweighs how it began."""
    table = nn.Embedding(rows, dim, padding_idx=0 if padded else None)
    with torch.no_grad():
        table.weight.mul_(_INITIAL_STD)
    return table


class CategoricalToken(nn.Module):
    """A hashed id looked up in a table; id 0 (missing) has a learned vector too.

    Source: embedding lookup of every categorical feature (DERM, figure 1).
    Deviations: hashed ids instead of a min-count vocabulary: no vocabulary to version.
    """

    def __init__(self, cardinality: int, embedding_dim: int, token_dim: int) -> None:
        super().__init__()
        self.table = _table(cardinality, embedding_dim)
        self.token = Token(embedding_dim, token_dim)

    def forward(self, id_B: Tensor) -> Tensor:
        """Map id_B to out_BD."""
        out_BD: Tensor = self.token(self.table(id_B))
        return out_BD


class BagToken(nn.Module):
    """The mean vector of an unordered list of hashed ids; 0 pads.

    Source: multi-valued features as the mean of their vectors: Covington, Adams and Sargin, 2016,
        "Deep neural networks for YouTube recommendations", section 3.2.
    Deviations: ids are hashed into the table.
    """

    def __init__(self, cardinality: int, embedding_dim: int, token_dim: int) -> None:
        super().__init__()
        self.table = _table(cardinality, embedding_dim, padded=True)
        self.token = Token(embedding_dim, token_dim)

    def forward(self, id_BT: Tensor) -> Tensor:
        """Map id_BT to out_BD."""
        length_B = (id_BT > 0).sum(dim=1, keepdim=True).clamp(min=1)
        out_BD: Tensor = self.token(self.table(id_BT).sum(dim=1) / length_B)
        return out_BD


class DenseToken(nn.Module):
    """A pretrained vector: LayerNorm, then a token.

    Source: dense vectors get a LayerNorm each (InteractRank).
    Deviations: none.
    """

    def __init__(self, in_dim: int, token_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.token = Token(in_dim, token_dim)

    def forward(self, x_BE: Tensor) -> Tensor:
        """Map x_BE to out_BD."""
        out_BD: Tensor = self.token(self.norm(x_BE))
        return out_BD


class SequenceElements(nn.Module):
    """Parallel sequences of hashed ids (Pins, actions, surfaces), an element at a time.

    An element is the concatenation of its ids' vectors, projected to D.

    Args:
        cardinalities: rows of each sequence's table; G of them.
        max_len: T, newest elements that are read.

    Source: TransAct (Pinterest, transformer_user_action).
    Deviations: ids only; the position (0 is the newest) stands for the age.
    """

    def __init__(
        self, cardinalities: tuple[int, ...], max_len: int, embedding_dim: int, dim: int
    ) -> None:
        super().__init__()
        self.max_len = max_len
        self.tables = nn.ModuleList(
            _table(rows, embedding_dim, padded=True) for rows in cardinalities
        )
        self.element = nn.Linear(embedding_dim * len(cardinalities), dim)

    def elements(self, id_GBT: list[Tensor]) -> tuple[Tensor, Padding]:
        """Map G tensors id_BT, newest first and padded with 0, to x_RD and where it lies."""
        static = id_GBT[0].is_cuda or torch.compiler.is_compiling()
        padding = Padding.of(id_GBT[0][:, : self.max_len] > 0, strip=not static)
        parts = [
            table(padding.strip(id_BT)) for table, id_BT in zip(self.tables, id_GBT, strict=True)
        ]
        return self.element(torch.cat(parts, dim=-1)), padding


class SequenceToken(SequenceElements):
    """Parallel sequences of hashed ids, encoded together.

    Args:
        max_len: T of what is there; the configuration may read fewer.

    Source: TransAct (Pinterest, transformer_user_action), without the candidate.
    Deviations: those of its elements.
    """

    def __init__(
        self,
        cardinalities: tuple[int, ...],
        max_len: int,
        embedding_dim: int,
        token_dim: int,
        config: SequenceConfig,
    ) -> None:
        super().__init__(cardinalities, min(max_len, config.max_len), embedding_dim, token_dim)
        self.encoder = SequenceEncoder(
            token_dim,
            self.max_len,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            latest=config.latest,
        )
        self.token = Token(self.encoder.out_dim, token_dim)

    def forward(self, id_GBT: list[Tensor]) -> Tensor:
        """Map G tensors id_BT, newest first and padded with 0, to out_BD."""
        x_RD, padding = self.elements(id_GBT)
        out_BD: Tensor = self.token(self.encoder(x_RD, padding))
        return out_BD


class TimeToken(nn.Module):
    """When in the day an event happened.

    Source: PinnerFormer, absolute time features.
    Deviations: periods of 6 h, 12 h and 1 d only. All impressions that a day trains on share its
    weekday, and conversions that arrive late have others: a week's period would tell them apart. No
    logarithm: an absolute time grows for ever, and a token that grows has left what it was trained
    on.
    """

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.encode = TimeEncoding(_EPOCH_PERIODS_S, with_log=False)
        self.token = Token(self.encode.out_dim, token_dim)

    def forward(self, t_B: Tensor) -> Tensor:
        """Map UTC seconds t_B (float64) to out_BD."""
        out_BD: Tensor = self.token(self.encode(t_B))
        return out_BD
