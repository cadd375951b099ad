"""The training loop: passes over batches, scoring before training, a sample for health.

Shapes: B rows, T tasks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from feature_store.contracts.base import ENTITIES, Entity
from models.nn.distinct import of_rows
from models.protocol import Metric, Objective
from models.training.config import TrainingConfig
from models.training.determinism import seed_torch
from models.training.distributed import for_backward, sum_over_ranks, world
from models.training.optimizers import Optimizers
from models.training.prefetch import to_device

Arrays = Mapping[str, npt.NDArray]
Scores = dict[str, dict[str, float | None]]


@dataclass(kw_only=True)
class PassState:
    """How far a pass has come; all that a resumed one needs besides weights and optimizer.

    Attributes:
        rows: of all ranks.
        losses: sums over steps and ranks, float64.
        latest: those of the last step, over all ranks.
    """

    steps: int = 0
    rows: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)

    def mean(self, name: str = "total") -> float:
        """The mean loss of a step."""
        return self.losses.get(name, 0.0) / max(self.steps, 1)


class Trainer:
    """Trains and scores one objective on one device of every rank.

    Args:
        empty: a batch of no rows, for a rank that has run out of them.
    """

    def __init__(
        self,
        objective: Objective,
        config: TrainingConfig,
        device: torch.device,
        *,
        learning_rate: float,
        empty: Arrays,
    ) -> None:
        self.objective, self.config, self.device = objective.to(device), config, device
        self.optimizer = Optimizers(objective, config, learning_rate=learning_rate)
        self._empty = empty
        self._step_module: nn.Module = objective
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = config.tf32
        if config.compile:
            self._step_module = torch.compile(objective)  # type: ignore[assignment]
        if world()[1] > 1:
            _leave_out_tables(self._step_module, objective)
            self._step_module = DistributedDataParallel(
                self._step_module,
                # The sketch is updated with gathered ids: equal on every rank by itself.
                forward_sync_buffers=False,
                find_unused_parameters=not objective.every_parameter_learns,
            )

    def train(
        self,
        batches: Iterable[Arrays],
        *,
        seed: tuple[int | str, ...],
        state: PassState | None = None,
        on_step: Callable[[PassState], None] | None = None,
        new_day: bool = True,
        again: bool = False,
    ) -> PassState:
        """One pass over the batches, continued after `state.steps` of them.

        Args:
            seed: every step reseeds torch from it and from its number, so that a resumed pass
                draws what an undisturbed one would have drawn.
            on_step: called after every step; whoever follows a training hears of it here.
            new_day: whether a day begins with the pass, or it continues the one before.
            again: whether the pass goes through what another one has gone through.
        """
        state = state or PassState()
        self.objective.train()
        if again and not state.steps:
            self.objective.begin_again()
        elif new_day and not state.steps:
            self.objective.begin_day()
        for batch in self._device_batches(islice(batches, state.steps, None)):
            seed_torch(*seed, state.steps)
            rows, *losses = self._step(batch)
            state.steps += 1
            state.rows += int(rows)
            state.latest = dict(zip(self.objective.losses, losses, strict=True))
            for name, value in state.latest.items():
                state.losses[name] = state.losses.get(name, 0.0) + value
            if on_step:
                on_step(state)
        return state

    @torch.no_grad()
    def score(
        self, batches: Iterable[Arrays], metrics: Mapping[str, Metric] | None = None
    ) -> Scores:
        """The metrics of every task on rows that are not trained on.

        Args:
            metrics: by task, others than the objective's own: `ScoredRows` keeps every row.
        """
        if not self.objective.tasks:
            return {}
        self.objective.eval()
        metrics = metrics or self.objective.metrics()
        for batch in self._device_batches(batches):
            with self._autocast():
                predicted_BT = self.objective.predict(batch)
            target_BT = self.objective.targets(batch)
            for index, task in enumerate(self.objective.tasks):
                metrics[task].update(predicted_BT[:, index], target_BT[:, index], batch)
        return {task: metric.result() for task, metric in metrics.items()}

    @torch.no_grad()
    def embed(self, batch: Arrays, entities: Iterable[Entity] = ENTITIES) -> dict[str, Tensor]:
        """The embeddings of the entities of the rows of one batch, on the CPU."""
        self.objective.eval()
        (tensors,) = to_device([batch], self.device, ahead=0)
        with self._autocast():
            return {
                e: of_rows(tensors, e, self.objective.embed(e, tensors)).cpu() for e in entities
            }

    @torch.no_grad()
    def predict(self, batch: Arrays) -> Tensor:
        """What is predicted of one batch, [B, T], on the CPU."""
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
        found = (losses.get(name, zero).detach() for name in self.objective.losses)
        parts = torch.stack([rows, *found])
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


def _leave_out_tables(module: nn.Module, objective: Objective) -> None:
    """Keep DDP from exchanging tables, and what is kept beside them: their optimizer does.

    Of a sharded table every rank has other rows, and not as many.
    """
    named = dict((*objective.named_parameters(), *objective.named_buffers()))
    declared = objective.tables()
    apart = {id(named[n]) for name, how in declared.items() for n in (name, how.sums) if n}
    # A compiled module gives its parameters other names.
    there = (*module.named_parameters(), *module.named_buffers())
    names = [name for name, x in there if id(x) in apart]
    ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(module, names)


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
