"""The unified ranker: one trunk, and rows that run through the tree of their own surface alone.

Shapes: B rows, b rows of one surface, X width of the trunk's inputs, V width of what single
surfaces know, T tasks.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from models.protocol import Batch, FirstWindow
from models.rankers.parts.blocks import ScopeBlock
from models.rankers.parts.inputs import RankingInputs
from models.rankers.parts.rates import base_logits
from models.rankers.unified.candidates import Grid
from models.rankers.unified.config import UnifiedConfig
from models.rankers.unified.tree import SurfaceTree
from models.rankers.unified.trunk import Trunk


@dataclass(frozen=True, slots=True)
class Routes:
    """Which rows of a batch belong to which surface.

    Attributes:
        order_B: the rows, surface after surface; within one as they came.
        count_S: how many each has; 0 for one that is not in the batch.
    """

    order_B: Tensor
    count_S: tuple[int, ...]

    @classmethod
    def of(cls, surface_B: Tensor, surfaces: int) -> "Routes":
        """Of rows whose surface is below `surfaces`."""
        surface_B = surface_B.long()
        count_S = torch.bincount(surface_B, minlength=surfaces)
        return cls(torch.argsort(surface_B, stable=True), tuple(count_S.tolist()))

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Each surface that has rows, and its rows."""
        for surface, rows_b in enumerate(torch.split(self.order_B, list(self.count_S))):
            if len(rows_b):
                yield surface, rows_b

    def back(self, x_BT: Tensor) -> Tensor:
        """What is in the order of the surfaces, in that of the rows."""
        return torch.empty_like(x_BT).index_copy(0, self.order_B, x_BT)


class OwnFeatures(nn.Module):
    """What single surfaces know, beside the learned token of everybody else's rows.

    A row's features of another surface are never read, whatever they hold.

    Source: the union of surface feature maps in Pinterest's unified engagement model (2026).
    Deviations: whether a token is the learned one is told by the surface, which the trunk reads.
    """

    def __init__(self, inputs: RankingInputs, config: UnifiedConfig) -> None:
        super().__init__()
        known = {s: inputs.context_of(s) for s in range(1, inputs.num_surfaces + 1)}
        self.blocks = nn.ModuleDict(
            {str(s): ScopeBlock(features, config) for s, features in known.items() if features}
        )
        self.missing = nn.ParameterDict(
            {s: torch.zeros(cast("ScopeBlock", block).out_dim) for s, block in self.blocks.items()}
        )
        self.names = {str(s): tuple(f.name for f in features) for s, features in known.items()}
        self.out_dim = sum(len(missing_v) for missing_v in self.missing.values())

    def dim_of(self, surface: int) -> int:
        """The width of what a surface knows; 0 where it is nothing."""
        return len(self.missing[str(surface)]) if str(surface) in self.missing else 0

    def only(self, surface: int) -> "OwnFeatures":
        """The same without what other surfaces know; their missing tokens stay."""
        left = copy.deepcopy(self)
        for key in [k for k in left.blocks if k != str(surface)]:
            del left.blocks[key]
        return left

    def read(self, batch: Batch, surface: int, rows_b: Tensor) -> Tensor | None:
        """What a surface knows of its rows; None where it has no features of its own."""
        key = str(surface)
        if key not in self.blocks:
            return None
        found: Tensor = self.blocks[key]({n: batch[n][rows_b] for n in self.names[key]})
        return found

    def together(self, known: dict[int, tuple[Tensor, Tensor]], surface_B: Tensor) -> Tensor:
        """All tokens of all rows, x_BV.

        Args:
            known: by surface, its rows and what it knows of them.
        """
        rows = surface_B.shape[0]
        parts = [torch.empty(rows, 0, device=surface_B.device)]
        for surface, missing_v in self.missing.items():
            x_Bv = missing_v.expand(rows, -1)
            if int(surface) in known:
                rows_b, x_bv = known[int(surface)]
                x_Bv = x_Bv.index_copy(0, rows_b, x_bv)
            parts.append(x_Bv)
        return torch.cat(parts, dim=1)


class UnifiedRanker(nn.Module):
    """Clicks, and what follows them, on every surface.

    Surface 0, which is one that was never seen, has a tree of its own: it says the base rate until
    rows of such surfaces teach it, and never asks the tower of another.

    Source: Pinterest's unified engagement model (2026); MMoE (Ma et al. 2018).
    Deviations: those of its parts.
    """

    def __init__(self, inputs: RankingInputs, config: UnifiedConfig) -> None:
        super().__init__()
        self.inputs, self.config = inputs, config
        self.own = OwnFeatures(inputs, config)
        self.trunk = Trunk(inputs, self.own.out_dim, config)
        dims, tasks = (self.trunk.out_dim, self.trunk.experts.out_dim), len(inputs.tasks)
        surfaces = inputs.num_surfaces + 1 if config.tree.per_surface else 1
        self.trees = nn.ModuleList(
            SurfaceTree(
                (*dims, self.late_dim(surface)),
                tasks,
                config.experts,
                config.tree,
                silent=surface == 0 and config.tree.per_surface,
            )
            for surface in range(surfaces)
        )

    def late_dim(self, surface: int) -> int:
        """The width of a surface's own features in its tree."""
        late = self.config.tree.own and self.config.tree.per_surface
        return self.own.dim_of(surface) if late else 0

    @torch.no_grad()
    def fit(self, window: FirstWindow) -> None:
        """Take over ranges, spreads and base rates; once, before the first step."""
        self.trunk.fit(window)
        for block in self.own.blocks.values():
            cast("ScopeBlock", block).fit(window.ranges, window.sample)
        for tree in self.trees:
            cast("SurfaceTree", tree).bias_T.copy_(base_logits(window, self.inputs.tasks))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to `logits` (logits_BT), and `trunk` (x_BX), what all trees share."""
        routes = Routes.of(batch["surface"], self.inputs.num_surfaces + 1)
        read = {s: (rows_b, self.own.read(batch, s, rows_b)) for s, rows_b in routes}
        known = {s: (rows_b, x_bv) for s, (rows_b, x_bv) in read.items() if x_bv is not None}
        users = self.trunk.encode(batch)
        own_BV = self.own.together(known, batch["surface"])
        x_BX = self.trunk(batch, users, own_BV, _grid(batch, len(users.x_U)))
        expert_KBO = self.trunk.experts(x_BX)
        if not self.config.tree.per_surface:
            return {"logits": self.trees[0](x_BX, expert_KBO, None), "trunk": x_BX}
        parts = [
            self.trees[s](
                x_BX[rows_b], expert_KBO[:, rows_b], known[s][1] if self.late_dim(s) else None
            )
            for s, rows_b in routes
        ]
        none = x_BX.new_zeros(0, len(self.inputs.tasks))
        return {"logits": routes.back(torch.cat([none, *parts])), "trunk": x_BX}


def _grid(batch: Batch, users: int) -> Grid:
    """The grid of a batch: a line per user where each row has a user of its own."""
    row_B = batch.get("row:user")
    return Grid.even(users, 1) if row_B is None else Grid.of(row_B, users)
