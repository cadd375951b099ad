"""The trunk that all surfaces share: features of all of them, a long history, and experts.

Shapes: B rows, U users, V width of what only single surfaces know, X width of all inputs, K
experts, O width of an expert.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feature_store.contracts.datasets import Feature
from models.nn.distinct import of_rows
from models.nn.experts import Experts
from models.nn.scopes import sequence_groups
from models.nn.time_encoding import DAY_S, TimeEncoding
from models.protocol import Batch, FirstWindow
from models.rankers.parts.blocks import ScopeBlock
from models.rankers.parts.inputs import RankingInputs
from models.rankers.parts.vectors import VectorBlock
from models.rankers.unified.candidates import Grid
from models.rankers.unified.config import UnifiedConfig
from models.rankers.unified.history import History, Remembered

_PERIODS_S = (DAY_S / 4, DAY_S / 2, DAY_S)


@dataclass(frozen=True, slots=True)
class Users:
    """What is computed once for each distinct user of a batch.

    Attributes:
        x_U: their features.
        history: their long sequence; None where there is none.
    """

    x_U: Tensor
    history: Remembered | None


class Trunk(nn.Module):
    """Rows of all surfaces as one wide vector each, and what the experts make of it.

    Args:
        own_dim: V.

    Source: Pinterest's unified engagement model (2026): union of the surfaces' features, long
    sequence transformer, DCNv2 projection, mixture of experts.
    Deviations: the experts cross the whole input, not the sequence alone.
    """

    def __init__(self, inputs: RankingInputs, own_dim: int, config: UnifiedConfig) -> None:
        super().__init__()
        long, rest = _longest(inputs.user, config)
        shared = inputs.context_of(0)
        self.user = ScopeBlock(rest, config)
        self.pin = ScopeBlock(inputs.pin, config)
        self.context = ScopeBlock(shared, config) if shared else None
        self.surface = nn.Embedding(inputs.num_surfaces + 1, config.categorical_dim)
        self.time = TimeEncoding(_PERIODS_S, with_log=False)
        self.vectors = VectorBlock(inputs.vectors, config.projection) if inputs.vectors else None
        asking = self.pin.out_dim + config.categorical_dim
        self.history = (
            History(long, config.categorical_dim, asking, config.history) if long else None
        )
        blocks = (self.user, self.pin, self.context, self.time, self.vectors, self.history)
        self.out_dim = (
            config.categorical_dim
            + own_dim
            + sum(block.out_dim for block in blocks if block is not None)
        )
        self.experts = Experts(self.out_dim, config.experts)

    def fit(self, window: FirstWindow) -> None:
        """Take over ranges and spreads; once, before the first step."""
        for block in (self.user, self.pin, self.context):
            if block is not None:
                block.fit(window.ranges, window.sample)

    def encode(self, batch: Batch) -> Users:
        """What is computed once for each distinct user."""
        history = self.history.encode(batch) if self.history is not None else None
        return Users(self.user(batch), history)

    def forward(self, batch: Batch, users: Users, own_BV: Tensor, grid: Grid) -> Tensor:
        """Map a batch to x_BX."""
        pin_B = of_rows(batch, "pin", self.pin(batch))
        surface_B = self.surface(batch["surface"])
        parts = [
            of_rows(batch, "user", users.x_U),
            pin_B,
            surface_B,
            self.time(batch["ts"]),
            own_BV,
        ]
        parts += [block(batch) for block in (self.context, self.vectors) if block is not None]
        if self.history is not None and users.history is not None:
            candidate_B = torch.cat([pin_B, surface_B], dim=1)
            parts.append(self.history(batch, candidate_B, grid, users.history))
        return torch.cat(parts, dim=1)


def _longest(
    features: Sequence[Feature], config: UnifiedConfig
) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """The parallel sequences that are the history, and all other features of users."""
    groups = sequence_groups(features)
    if not groups or not config.history.max_len:
        return (), tuple(features)
    long = max(groups, key=lambda group: group[0].max_len)
    return long, tuple(f for f in features if f not in long)
