"""A user's longest sequence: encoded once per user, reduced for all rows, asked by each of them.

Shapes: B rows, U users, T elements, H width of an element, S summary, P projected width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feature_store.contracts.datasets import Feature
from models.nn.cross import CrossNetwork
from models.nn.distinct import of_rows
from models.nn.tokens import SequenceElements
from models.nn.transformer import SequenceEncoder
from models.protocol import Batch
from models.rankers.unified.candidates import CandidateAttention, Grid
from models.rankers.unified.config import HistoryConfig


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is kept of users' histories for their rows.

    Attributes:
        summary_UP: of every user.
        memory: keys and values that candidates ask; None where they do not.
        valid_UT: which elements there are.
    """

    summary_UP: Tensor
    memory: tuple[Tensor, Tensor] | None
    valid_UT: Tensor


class Projection(nn.Module):
    """Crosses of low rank, then a linear map: a wide summary becomes a narrow one.

    Args:
        dim: S.

    Source: the DCNv2 projection between the transformer's output and what crosses it, in
    Pinterest's unified engagement model (2026); DCNv2 (arXiv 2008.13535), equation 2.
    Deviations: none.
    """

    def __init__(self, dim: int, config: HistoryConfig) -> None:
        super().__init__()
        self.cross = CrossNetwork(dim, config.cross_layers, rank=config.cross_rank)
        self.linear = nn.Linear(dim, config.projection)
        self.out_dim = config.projection

    def forward(self, x_US: Tensor) -> Tensor:
        """Map x_US to out_UP."""
        out_UP: Tensor = self.linear(self.cross(x_US))
        return out_UP


class History(SequenceElements):
    """The long sequence of a user, for many candidates.

    Args:
        features: parallel sequences, of one length.
        embedding_dim: width of each id's vector.
        candidate_dim: of what is known of a candidate.

    Source: TransAct (Pinterest, transformer_user_action); the long sequence transformer of
    Pinterest's unified engagement model (2026).
    Deviations: the summary sees no candidate, and so is one per user; candidates ask the encoded
    elements (`CandidateAttention`).
    """

    def __init__(
        self,
        features: Sequence[Feature],
        embedding_dim: int,
        candidate_dim: int,
        config: HistoryConfig,
    ) -> None:
        length = min(features[0].max_len, config.max_len)
        super().__init__(
            tuple(f.cardinality for f in features), length, embedding_dim, config.width
        )
        self.names = tuple(f.name for f in features)
        self.encoder = SequenceEncoder(
            config.width,
            length,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            latest=config.latest,
        )
        wide = self.encoder.out_dim
        self.projection = Projection(wide, config) if config.projection else None
        self.candidate = (
            CandidateAttention(candidate_dim, config.width, config.num_heads)
            if config.candidate
            else None
        )
        self.out_dim = (config.projection or wide) + (config.width if config.candidate else 0)

    def encode(self, batch: Batch) -> Remembered:
        """What is kept of each distinct user of a batch."""
        x_RH, padding = self.elements([batch[name] for name in self.names])
        x_UTH = self.encoder.encode(x_RH, padding)
        summary = self.encoder.reduce(x_UTH, padding)
        if self.projection is not None:
            summary = self.projection(summary)
        memory = self.candidate.remember(x_UTH) if self.candidate is not None else None
        return Remembered(summary, memory, padding.valid_BT)

    def forward(self, batch: Batch, candidate_BD: Tensor, grid: Grid, kept: Remembered) -> Tensor:
        """What each row [B, out_dim] reads: its user's summary, and what its candidate finds."""
        summary_BP = of_rows(batch, "user", kept.summary_UP)
        if self.candidate is None or kept.memory is None:
            return summary_BP
        found_BH = self.candidate(candidate_BD, kept.memory, kept.valid_UT, grid)
        return torch.cat([summary_BP, found_BH], dim=1)
