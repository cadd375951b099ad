"""The upstream model of DERM: embeddings of users and Pins, and predictions for a pair.

Shapes: B rows, U distinct entities, L tokens of width D, E = L * D embedding width, T tasks.
"""

import math

import torch
from torch import Tensor, nn

from feature_store.contracts.base import Entity
from models.derm.config import DermConfig
from models.derm.features import ModelInputs
from models.derm.towers import EntityTower, OverallTower
from models.nn.distinct import of_rows
from models.protocol import Batch, FirstWindow

_MIN_RATE = 1e-4


class DermModel(nn.Module):
    """Three towers and a head per task.

    Args:
        inputs: the features of each tower and the tasks.
        config: sizes.

    Source: DERM (arXiv 2509.04337), section 3.1.
    Deviations: heads start at the base rate of their task.
    """

    base_rate_T: Tensor

    def __init__(self, inputs: ModelInputs, config: DermConfig) -> None:
        super().__init__()
        self.inputs, self._config = inputs, config
        self.user = EntityTower(inputs.user, "user", config)
        self.pin = EntityTower(inputs.pin, "pin", config)
        self.overall = OverallTower(inputs, config)
        self.register_buffer("base_rate_T", torch.full((len(inputs.tasks),), 0.5))

    def config(self) -> DermConfig:
        """The sizes it was built with."""
        return self._config

    @torch.no_grad()
    def fit(self, window: FirstWindow) -> None:
        """Take over ranges, spreads and base rates; once, before the first step."""
        for tokens in (self.user.tokens, self.pin.tokens, self.overall.context):
            tokens.fit(window.ranges, window.sample)
        for index, task in enumerate(self.inputs.tasks):
            rate = min(max(window.base_rates[task], _MIN_RATE), 1 - _MIN_RATE)
            self.base_rate_T[index] = rate
            self.overall.start_head(task, math.log(rate / (1 - rate)))

    def embed(self, entity: Entity, batch: Batch) -> Tensor:
        """The embedding_UE of distinct users or Pins; needs only their own features."""
        tower = self.user if entity == "user" else self.pin
        embedding_UE: Tensor = tower(batch)[0]
        return embedding_UE

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to `user` and `pin` (embedding_BE, norm 1) and `logits` (logits_BT)."""
        user, pin = self._tower(batch, "user"), self._tower(batch, "pin")
        logits_BT = self.overall(batch, user, pin)
        return {"user": user[0], "pin": pin[0], "logits": logits_BT.float()}

    def _tower(self, batch: Batch, entity: Entity) -> tuple[Tensor, Tensor]:
        """(embedding_BE, tokens_BLD): each distinct entity embedded once, repeated for its rows."""
        tower = self.user if entity == "user" else self.pin
        embedding_UE, tokens_ULD = tower(batch)
        return of_rows(batch, entity, embedding_UE), of_rows(batch, entity, tokens_ULD)
