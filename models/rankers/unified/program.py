"""What serves one surface: trunk, its tree and its calibration as one program, and nothing else.

Users of a request come once each, and as many rows for each of them, side by side: what a user is,
is computed once, however many candidates there are.

Shapes: U users, R rows of each of them (2 or more), B = U R rows, T tasks.
"""

import copy

import torch
from torch import Tensor, nn

from feature_store.contracts.datasets import Feature
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.candidates import Grid
from models.rankers.unified.model import UnifiedRanker


class SurfaceCalibration(nn.Module):
    """A scale and a shift for each task, then a probability.

    Args:
        fitted_T2: of one surface.

    Source: Platt scaling (Platt 1999).
    Deviations: none.
    """

    fitted_T2: Tensor

    def __init__(self, fitted_T2: Tensor) -> None:
        super().__init__()
        self.register_buffer("fitted_T2", fitted_T2.contiguous().clone())

    def forward(self, logits_BT: Tensor) -> Tensor:
        """Map logits_BT to probabilities_BT."""
        return torch.sigmoid(self.fitted_T2[:, 0] * logits_BT + self.fitted_T2[:, 1])


class SurfaceProgram(nn.Module):
    """The unified ranker as one surface has it.

    The trees and the features of other surfaces are not in it; what stood for their features on
    rows of this surface, the learned tokens, is a constant.

    Args:
        ranker: what it is cut out of; it keeps no part of it.
        surface: its number; 0 is one that was never seen.
        calibration: from logits_BT to probabilities; a module that is the surface's alone.

    Source: an export per surface of one training run (Pinterest's unified engagement model, 2026).
    Deviations: none.
    """

    surface_B: Tensor

    def __init__(self, ranker: UnifiedRanker, surface: int, calibration: nn.Module) -> None:
        super().__init__()
        self.users_read, self.rows_read = sides(ranker.inputs, surface)
        self.vectors = frozenset(f.name for f in ranker.inputs.vectors)
        self.trunk = copy.deepcopy(ranker.trunk)
        one = nn.Embedding(1, ranker.config.categorical_dim)
        with torch.no_grad():
            one.weight.copy_(ranker.trunk.surface.weight[surface : surface + 1])
        self.trunk.surface = one
        self.tree = copy.deepcopy(ranker.trees[surface if ranker.config.tree.per_surface else 0])
        self.late = bool(ranker.late_dim(surface))
        self.own = copy.deepcopy(ranker.own.only(surface))
        self.surface = surface
        self.calibration = calibration
        self.eval()

    def forward(self, users: dict[str, Tensor], rows: dict[str, Tensor]) -> Tensor:
        """The calibrated probabilities_BT.

        Args:
            users: features of users, [U, ...].
            rows: features of Pins and of the context, [B, ...]: those of the first user first.
        """
        count, total = users[self.users_read[0].name].shape[0], rows["ts"].shape[0]
        width = total // count
        device = rows["ts"].device
        everything = torch.arange(total, device=device)
        number_B = torch.zeros_like(everything)
        batch = users | rows | {"row:user": everything // width, "surface": number_B}
        known_bV = self.own.read(batch, self.surface, everything)
        known = {} if known_bV is None else {self.surface: (everything, known_bV)}
        own_BV = self.own.together(known, number_B)
        kept = self.trunk.encode(batch)
        x_BX = self.trunk(batch, kept, own_BV, Grid.even(count, width))
        late = known_bV if self.late else None
        logits_BT = self.tree(x_BX, self.trunk.experts(x_BX), late)
        found_BT: Tensor = self.calibration(logits_BT)
        return found_BT


def sides(inputs: RankingInputs, surface: int) -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """What a surface's program reads of users, and of rows (beside `ts`)."""
    users = (*inputs.user, *(f for f in inputs.vectors if f.scope == "user"))
    pins = (*inputs.pin, *(f for f in inputs.vectors if f.scope == "pin"))
    own = inputs.context_of(surface) if surface else ()
    return users, (*pins, *inputs.context_of(0), *own)
