"""The click ranker: everything side by side, a mixture of DCNv2 experts, a tower per task.

Shapes: B rows, U distinct entities, X width of the concatenation, G gates, H width of an expert,
T tasks.
"""

import torch
from torch import Tensor, nn

from models.nn.distinct import of_rows
from models.nn.experts import ExpertMixture, ParallelMLP
from models.nn.time_encoding import DAY_S, TimeEncoding
from models.protocol import Batch, FirstWindow
from models.rankers.config import CtrConfig
from models.rankers.parts.blocks import ScopeBlock
from models.rankers.parts.ids import IdBlock
from models.rankers.parts.inputs import RankingInputs
from models.rankers.parts.rates import base_logits
from models.rankers.parts.relations import RelationViews
from models.rankers.parts.vectors import VectorBlock

# Products of matrices whose rows begin off the bounds of a vector register take half as long again.
_ALIGNED = 16
_PERIODS_S = (DAY_S / 4, DAY_S / 2, DAY_S)


class CtrRanker(nn.Module):
    """Clicks, and what follows them, of a user and a Pin in a context.

    Source: DERM (arXiv 2509.04337), section 3.2.
    Deviations: the transformer does not see the candidate, so it runs once per user and not once
    per row. Zeros fill the width up to a multiple of 16.
    """

    def __init__(self, inputs: RankingInputs, config: CtrConfig) -> None:
        super().__init__()
        self.inputs = inputs
        self.user = ScopeBlock(inputs.user, config)
        self.pin = ScopeBlock(inputs.pin, config)
        self.context = ScopeBlock(inputs.context, config) if inputs.context else None
        self.surface = nn.Embedding(inputs.num_surfaces + 1, config.categorical_dim)
        self.time = TimeEncoding(_PERIODS_S, with_log=False)
        self.vectors = VectorBlock(inputs.vectors, config.projection) if inputs.vectors else None
        self.ids = IdBlock(config.ids) if config.ids.names else None
        compares = bool(inputs.vectors and config.relations.upstream)
        self.relations = RelationViews(inputs.vectors, config.relations) if compares else None
        further = (self.vectors, self.relations, self.ids)
        blocks = (self.user, self.pin, self.context, self.time, *further)
        width = config.categorical_dim + sum(b.out_dim for b in blocks if b is not None)
        gates = len(inputs.tasks) if config.experts.gate == "per_task" else 1
        self.padding = -width % _ALIGNED
        self.experts = ExpertMixture(width + self.padding, gates, config.experts)
        tasks = len(inputs.tasks)
        self.towers = ParallelMLP(tasks, (self.experts.out_dim, *config.tower, 1))
        self.bias_T = nn.Parameter(torch.zeros(tasks))

    @torch.no_grad()
    def fit(self, window: FirstWindow) -> None:
        """Take over ranges, spreads and base rates; once, before the first step."""
        for block in (self.user, self.pin, self.context):
            if block is not None:
                block.fit(window.ranges, window.sample)
        self.bias_T.copy_(base_logits(window, self.inputs.tasks))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to `logits` (logits_BT)."""
        parts = [
            of_rows(batch, "user", self.user(batch)),
            of_rows(batch, "pin", self.pin(batch)),
            self.surface(batch["surface"]),
            self.time(batch["ts"]),
        ]
        further = (self.context, self.vectors, self.relations, self.ids)
        parts += [block(batch) for block in further if block is not None]
        parts.append(parts[0].new_zeros(len(parts[0]), self.padding))
        mixed_GBH = self.experts(torch.cat(parts, dim=1))
        tasks = len(self.inputs.tasks)
        logits_TB1 = self.towers(mixed_GBH.expand(tasks, *mixed_GBH.shape[1:]))
        return {"logits": logits_TB1.squeeze(-1).T.float() + self.bias_T}
