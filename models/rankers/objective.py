"""What a ranker is trained for: every task, labels that arrive late, and an auxiliary loss.

Shapes: B rows of this rank, T tasks.
"""

from typing import cast

import torch
from torch import Tensor

from models.nn.tokens import SequenceToken
from models.protocol import Batch, FirstWindow, Metric, Objective, RowWise
from models.rankers.config import CtrConfig, CvrConfig, RankerConfig
from models.rankers.ctr import CtrRanker
from models.rankers.cvr import CvrRanker, NextAction
from models.rankers.inputs import RankingInputs
from models.training.delayed import DelayedLabels, labels, multi_task_bce
from models.training.impressions import ImpressionMetrics, PrimaryMetrics


class RankingObjective(Objective):
    """A ranker and its losses; the ranker inside stays exportable.

    Source: DERM (arXiv 2509.04337), section 3.2: the sum over tasks of their cross-entropies.
    Deviations: a label that arrives late takes the negative back that its impression was counted
    as (`DelayedLabels`).
    """

    def __init__(self, inputs: RankingInputs, config: RankerConfig) -> None:
        super().__init__()
        self.model: CtrRanker | CvrRanker
        self.next_action: NextAction | None = None
        self.weight = 0.0
        if isinstance(config, CtrConfig):
            self.model = CtrRanker(inputs, config)
        else:
            self.model = CvrRanker(inputs, config)
            self._add_next_action(self.model, config)
        self.delayed = DelayedLabels(len(inputs.tasks), "taken_back")
        self.tasks = inputs.tasks
        self.losses = ("total", "supervised", "next_action")[: 3 if self.next_action else 2]
        self.every_parameter_learns = True

    def _add_next_action(self, model: CvrRanker, config: CvrConfig) -> None:
        if config.next_action > 0:
            self.weight = config.next_action
            self.next_action = NextAction(model, config.temperature)

    def tables(self) -> dict[str, RowWise]:
        """The tables of ids, where there are some and they are not frozen."""
        if self.model.ids is None:
            return {}
        return {f"model.ids.facets.{n}": how for n, how in self.model.ids.facets.tables().items()}

    def fit(self, window: FirstWindow) -> None:
        """Take over what the first window says; once, before the first step."""
        self.model.fit(window)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Map a batch to this rank's part of `total`, `supervised` and `next_action`."""
        logits_BT = self.model(batch)["logits"]
        weight_T = torch.ones(len(self.tasks), device=logits_BT.device)
        target_BT = labels(batch, self.tasks)
        supervised = multi_task_bce(logits_BT, target_BT, batch["late"], weight_T, self.delayed)
        if self.next_action is None:
            return {"total": supervised, "supervised": supervised}
        token = cast("SequenceToken", self.model.user.encoders[0])
        auxiliary: Tensor = self.next_action(token, batch)
        total = supervised + self.weight * auxiliary
        return {"total": total, "supervised": supervised, "next_action": auxiliary}

    def begin_day(self) -> None:
        """Let what was counted of late labels weigh less than what the new day brings."""
        self.delayed.fade()

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
