"""The training loop: passes over batches, scoring before training, a sample for health.

Shapes: B rows, T tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from feature_store.contracts.base import ENTITIES
from models.derm.features import labels, of_rows
from models.derm.losses import DermObjective, for_backward
from models.training.auc_error import AucError
from models.training.config import TrainingConfig
from models.training.determinism import seed_torch
from models.training.distributed import sum_over_ranks, world
from models.training.metrics import BinaryMetrics
from models.training.optimizer import FlatAdamW
from models.training.prefetch import to_device

Arrays = Mapping[str, npt.NDArray]
Scores = dict[str, dict[str, float | None]]
LOSSES = ("total", "supervised", "self_supervised")


@dataclass(kw_only=True)
class PassState:
    """How far a pass has come; all that a resumed one needs besides weights and optimizer.

    Attributes:
        rows: of all ranks.
        losses: sums over steps and ranks, float64.
    """

    steps: int = 0
    rows: int = 0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LOSSES, 0.0))

    def mean(self, name: str = "total") -> float:
        """The mean loss of a step."""
        return self.losses[name] / max(self.steps, 1)


class Trainer:
    """Trains and scores one objective on one device of every rank.

    Args:
        empty: a batch of no rows, for a rank that has run out of them.
    """

    def __init__(
        self,
        objective: DermObjective,
        config: TrainingConfig,
        device: torch.device,
        *,
        learning_rate: float,
        empty: Arrays,
    ) -> None:
        self.objective, self.config, self.device = objective.to(device), config, device
        self.optimizer = FlatAdamW(
            objective,
            learning_rate=learning_rate,
            weight_decay=config.weight_decay,
            max_norm=config.max_grad_norm,
        )
        self._empty = empty
        self._step_module: nn.Module = objective
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = config.tf32
        if config.compile:
            self._step_module = torch.compile(objective)  # type: ignore[assignment]
        if world()[1] > 1:
            self._step_module = DistributedDataParallel(
                self._step_module,
                # The sketch is updated with gathered ids: equal on every rank by itself.
                forward_sync_buffers=False,
                # Without the self-supervised loss the temperature is not used.
                find_unused_parameters=objective.loss.ssl_weight == 0,
            )

    def train(
        self,
        batches: Iterable[Arrays],
        *,
        seed: tuple[int | str, ...],
        state: PassState | None = None,
        on_step: Callable[[PassState], None] | None = None,
        new_day: bool = True,
    ) -> PassState:
        """One pass over the batches, continued after `state.steps` of them.

        Args:
            seed: every step reseeds torch from it and from its number, so that a resumed pass
                draws what an undisturbed one would have drawn.
            on_step: called after every step.
            new_day: whether a day begins with the pass, or it continues the one before.
        """
        state = state or PassState()
        self.objective.train()
        if new_day and not state.steps:
            self.objective.begin_day()
        for batch in self._device_batches(islice(batches, state.steps, None)):
            seed_torch(*seed, state.steps)
            rows, *losses = self._step(batch)
            state.steps += 1
            state.rows += int(rows)
            for name, value in zip(LOSSES, losses, strict=True):
                state.losses[name] += value
            if on_step:
                on_step(state)
        return state

    @torch.no_grad()
    def score(self, batches: Iterable[Arrays]) -> Scores:
        """The metrics of every task on impressions that are not trained on; `auc_se` of the first.

        Labels that arrive late are no rows of their own here: they are counted, see `calibration`
        and `calibration_arrived` of `BinaryMetrics`.
        """
        self.objective.eval()
        tasks = self.objective.model.inputs.tasks
        metrics = {task: BinaryMetrics() for task in tasks}
        error = AucError()
        for batch in self._device_batches(batches):
            with self._autocast():
                logits_BT = self.objective.predict(batch)
            labels_BT = labels(batch, tasks)
            for index, task in enumerate(tasks):
                metrics[task].update(logits_BT[:, index], labels_BT[:, index], batch["late"])
            shown = ~batch["late"]
            error.update(logits_BT[shown, 0], labels_BT[shown, 0], batch["key:user"][shown])
        results = {task: metric.result() for task, metric in metrics.items()}
        return results | {tasks[0]: {**results[tasks[0]], "auc_se": error.result()}}

    @torch.no_grad()
    def embed(self, batch: Arrays) -> dict[str, Tensor]:
        """The user and Pin embeddings of the rows of one batch, on the CPU."""
        self.objective.eval()
        (tensors,) = to_device([batch], self.device, ahead=0)
        with self._autocast():
            model = self.objective.model
            return {e: of_rows(tensors, e, model.embed(e, tensors)).cpu() for e in ENTITIES}

    @torch.no_grad()
    def predict(self, batch: Arrays) -> Tensor:
        """The logits_BT of one batch, on the CPU."""
        self.objective.eval()
        (tensors,) = to_device([batch], self.device, ahead=0)
        with self._autocast():
            return self.objective.predict(tensors).cpu()

    def _step(self, batch: Mapping[str, Tensor]) -> list[float]:
        """The number of rows and the losses of one step, over all ranks."""
        self.optimizer.zero_grad()
        with self._autocast():
            losses = self._step_module(batch)
        torch.autograd.backward(for_backward(losses["total"]))
        self.optimizer.step()
        zero = torch.zeros((), device=self.device)
        rows = torch.full((), len(batch["key:user"]), dtype=torch.float32, device=self.device)
        parts = torch.stack([rows, *(losses.get(name, zero).detach() for name in LOSSES)])
        values: list[float] = sum_over_ranks(parts).tolist()
        return values

    def _autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _device_batches(self, batches: Iterable[Arrays]) -> Iterator[dict[str, Tensor]]:
        mine = to_device(batches, self.device, ahead=self.config.prefetch_batches)
        if world()[1] == 1:
            return mine
        (empty,) = to_device([self._empty], self.device, ahead=0)
        return _until_all_end(mine, empty, self.device)


def _until_all_end(
    mine: Iterator[dict[str, Tensor]], empty: dict[str, Tensor], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """This rank's batches, then empty ones until every rank has ended: all ranks step together."""
    while True:
        batch = next(mine, None)
        alive = torch.tensor([batch is not None], dtype=torch.int32, device=device)
        dist.all_reduce(alive)
        if not int(alive):
            return
        yield empty if batch is None else batch
