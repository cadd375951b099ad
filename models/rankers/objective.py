"""What a ranker is trained for: every task, labels that arrive late, and an auxiliary loss.

Shapes: B rows of this rank, T tasks.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from models.nn.tokens import SequenceToken
from models.protocol import Batch, FirstWindow, Metric, Objective, RowWise
from models.rankers.config import CtrConfig, CvrConfig, RankerConfig
from models.rankers.ctr import CtrRanker
from models.rankers.cvr import CvrRanker, NextAction
from models.rankers.parts.ids import IdFacets
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.balance import SurfaceBalance
from models.rankers.unified.config import UnifiedConfig
from models.rankers.unified.model import UnifiedRanker
from models.training.delayed import DelayedLabels, labels, multi_task_bce
from models.training.distributed import sum_over_ranks
from models.training.impressions import ImpressionMetrics, PrimaryMetrics


class RankingObjective(Objective):
    """A ranker and its losses; the ranker inside stays exportable.

    Attributes:
        teacher: the logits_BT of the ranker before, which a new one is also held to; for a
            training from scratch alone (`UnifiedConfig.distillation`).

    Source: DERM (arXiv 2509.04337), section 3.2: the sum over tasks of their cross-entropies.
    Deviations: a label that arrives late takes the negative back that its impression was counted
    as (`DelayedLabels`).
    """

    def __init__(self, inputs: RankingInputs, config: RankerConfig) -> None:
        super().__init__()
        self.model: CtrRanker | CvrRanker | UnifiedRanker
        self.next_action: NextAction | None = None
        self.balance: SurfaceBalance | None = None
        self.teacher: Callable[[Batch], Tensor] | None = None
        self.weight = 0.0
        self.every_parameter_learns = True
        if isinstance(config, CtrConfig):
            self.model = CtrRanker(inputs, config)
        elif isinstance(config, CvrConfig):
            self.model = CvrRanker(inputs, config)
            self._add_next_action(self.model, config)
        else:
            self._add_unified(inputs, config)
        self.delayed = DelayedLabels(len(inputs.tasks), "taken_back")
        self.tasks = inputs.tasks
        auxiliary = ("next_action",) if self.next_action else ("distilled",) if self.balance else ()
        self.losses = ("total", "supervised", *auxiliary)

    def _add_next_action(self, model: CvrRanker, config: CvrConfig) -> None:
        if config.next_action > 0:
            self.weight = config.next_action
            self.next_action = NextAction(model, config.temperature)

    @property
    def ids(self) -> IdFacets | None:
        """Its tables of ids, if it has any."""
        model = self.model
        block = None if isinstance(model, UnifiedRanker) else model.ids
        return block.facets if block is not None else None

    def tables(self) -> dict[str, RowWise]:
        """The tables of ids, where there are some and they are not frozen."""
        tables = self.ids.tables() if self.ids is not None else {}
        return {f"model.ids.facets.{name}": how for name, how in tables.items()}

    def _add_unified(self, inputs: RankingInputs, config: UnifiedConfig) -> None:
        self.model = UnifiedRanker(inputs, config)
        self.balance = SurfaceBalance(inputs.num_surfaces + 1, config.weights)
        self.weight = config.distillation
        # A surface that is missing from a batch leaves its tree alone.
        self.every_parameter_learns = False

    def fit(self, window: FirstWindow) -> None:
        """Take over what the first window says; once, before the first step."""
        self.model.fit(window)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to this rank's part of `total`, `supervised` and an auxiliary loss."""
        found = self.model(batch)
        weight_B = None
        if self.balance is not None:
            weight_B = self.balance(batch["surface"])
            self.balance.watch(found["trunk"], batch["surface"])
        supervised = self._against(found["logits"], batch, weight_B)
        auxiliary = self._auxiliary(found["logits"], batch)
        total = supervised + self.weight * sum(auxiliary.values())
        return {"total": total, "supervised": supervised, **auxiliary}

    def _against(self, logits_BT: Tensor, batch: Batch, weight_B: Tensor | None) -> Tensor:
        weight_T = torch.ones(len(self.tasks), device=logits_BT.device)
        return multi_task_bce(
            logits_BT,
            labels(batch, self.tasks),
            batch["late"],
            weight_T,
            self.delayed,
            weight_B,
        )

    def _auxiliary(self, logits_BT: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The losses beside the labels' own, by name."""
        if self.next_action is not None:
            token = cast("SequenceToken", cast("CvrRanker", self.model).user.encoders[0])
            return {"next_action": self.next_action(token, batch)}
        if self.teacher is not None and self.weight:
            with torch.no_grad():
                told_BT = torch.sigmoid(self.teacher(batch))
            each_BT = functional.binary_cross_entropy_with_logits(
                logits_BT, told_BT, reduction="none"
            )
            rows = sum_over_ranks(each_BT.new_tensor(float(len(each_BT))))
            return {"distilled": each_BT.sum() / rows.clamp(min=1)}
        return {}

    def begin_day(self) -> None:
        """Let what was counted of late labels weigh less than what the new day brings."""
        self.delayed.fade()
        if self.balance is not None:
            self.balance.fade()

    def predict(self, batch: Batch) -> Tensor:
        """The logits_BT of every label, whenever it arrives."""
        return self.delayed.chances(self.model(batch)["logits"])

    def targets(self, batch: Batch) -> Tensor:
        """The labels_BT that are known."""
        return labels(batch, self.tasks)

    def metrics(self) -> dict[str, Metric]:
        """Of impressions alone; the primary task knows how precise its AUC is."""
        primary, *others = self.tasks
        return {primary: PrimaryMetrics()} | {task: ImpressionMetrics() for task in others}

    def numbers(self) -> dict[str, float]:
        """The gradient that each surface sends into the trunk, where surfaces share one."""
        if self.balance is None:
            return {}
        names = ("other", *self.model.inputs.surfaces)
        return {f"gradient_{n}": p for n, p in zip(names, self.balance.pulls(), strict=True)}
