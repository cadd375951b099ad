"""Train a next-item model epoch by epoch; resumable, the best epoch on validation is kept.

In the folder of a run lie `curve.jsonl` (a line per epoch), `checkpoint.safetensors` (where it
stands) and `best.safetensors` (the weights that validation chose).

Shapes: U users of a batch, R positions, N negatives, I items.
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from experiments.next_item.protocol import TOP_K, Split, quality, ranks
from experiments.next_item.sequences import Ids, Sequences
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.errors import InputError
from models.sasrec.config import SasRecConfig
from models.sasrec.model import SasRec
from models.sasrec.objective import SasRecObjective
from models.training.checkpoint import module_tensors, read_tensors, write_tensors
from models.training.config import TrainingConfig
from models.training.determinism import make_deterministic, seed_torch
from models.training.loop import PassState, Trainer

log = logging.getLogger("derm")

_CHECKPOINT, _BEST, _CURVE = "checkpoint.safetensors", "best.safetensors", "curve.jsonl"

Batch = dict[str, npt.NDArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long, and how fast.

    Attributes:
        epochs: at most; the learning rate falls along half a cosine to zero at their end.
        patience: epochs without a better validation after which it ends.
        warmup_steps: over which the learning rate rises from zero.
    """

    epochs: int = 20
    patience: int = 10
    batch_users: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step."""
        warm = min((step + 1) / self.warmup_steps, 1.0)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


class NextItemRun:
    """One model, one split, one seed.

    Args:
        folder: of the run; what is there is continued.
    """

    def __init__(
        self, config: SasRecConfig, split: Split, schedule: Schedule, *, seed: int, folder: Path
    ) -> None:
        self.config, self.split, self.schedule = config, split, schedule
        self.seed, self.folder = seed, folder
        self.curve: list[dict[str, float]] = []
        make_deterministic(threads=1)
        seed_torch(seed, "next item", "initialise")
        objective = SasRecObjective(SasRec(split.train.num_items, config), config)
        self.trainer = Trainer(
            objective,
            TrainingConfig(precision="bfloat16", weight_decay=0.01, prefetch_batches=0),
            torch.device("cpu"),
            learning_rate=schedule.learning_rate,
            empty={},
        )
        self.model = objective.model
        folder.mkdir(parents=True, exist_ok=True)

    def train(self) -> None:
        """Train to the end, from where an interrupted run stopped."""
        self._restore()
        while len(self.curve) < self.schedule.epochs and not self._tired():
            self._epoch(len(self.curve))

    def best(self) -> "NextItemRun":
        """The same with the weights that validation chose."""
        if (path := self.folder / _BEST).exists():
            self.model.load_state_dict(read_tensors(path)[0])
        return self

    @torch.no_grad()
    def scores(self, before: Sequences) -> npt.NDArray[np.float32]:
        """What may follow each of some sequences: score_TI."""
        self.model.eval()
        newest = before.newest(self.config.max_len)
        found = self.model.scores(torch.from_numpy(newest.item_A), torch.from_numpy(newest.lengths))
        score_TI: npt.NDArray[np.float32] = found.numpy()
        return score_TI

    def _epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        users = len(self.split.train)
        per_epoch = -(-users // self.schedule.batch_users)
        total, optimizer = per_epoch * self.schedule.epochs, self.trainer.optimizer
        optimizer.set_learning_rate(self.schedule.rate(epoch * per_epoch, total))

        def on_step(state: PassState) -> None:
            step = epoch * per_epoch + state.steps
            optimizer.set_learning_rate(self.schedule.rate(step, total))

        state = self.trainer.train(self._batches(epoch), seed=(self.seed, epoch), on_step=on_step)
        trained = time.perf_counter() - started
        found = quality(ranks(self.scores, self.split.validation))
        line = {
            "epoch": epoch + 1,
            "loss": round(state.mean(), 5),
            **{f"validation_{name}": round(float(x.mean()), 5) for name, x in found.items()},
            "train_s": round(trained, 1),
        }
        self.curve.append(line)
        log.info("%s: %s", self.folder.name, json.dumps(line))
        if self._best_epoch() == len(self.curve) - 1:
            write_tensors(self.folder / _BEST, module_tensors(self.model))
        self._save()

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Every user once, in an order of the epoch's own."""
        random = np.random.default_rng((self.seed, epoch))
        train = self.split.train.newest(self.config.max_len + 1)
        users = np.flatnonzero(train.lengths > 1)
        for some in _parts(random.permutation(users), self.schedule.batch_users):
            yield _batch(train.take(some), self.config, random)

    def _best_epoch(self) -> int:
        values = [line[f"validation_ndcg_at_{TOP_K}"] for line in self.curve]
        return values.index(max(values))

    def _tired(self) -> bool:
        return bool(self.curve) and (
            len(self.curve) - 1 - self._best_epoch() >= self.schedule.patience
        )

    def _save(self) -> None:
        moments = {f"optimizer/{k}": v for k, v in self.trainer.optimizer.tensors().items()}
        weights = {f"model/{k}": v for k, v in module_tensors(self.model).items()}
        write_tensors(
            self.folder / _CHECKPOINT,
            weights | moments,
            {"curve": json.dumps(self.curve), "settings": self._settings()},
        )
        write_atomic(self.folder / _CURVE, "".join(f"{json.dumps(line)}\n" for line in self.curve))

    def _settings(self) -> str:
        """What decides the run, its data apart."""
        parts = [dataclasses.asdict(x) for x in (self.config, self.schedule)]
        return json.dumps([*parts, self.seed], sort_keys=True)

    def _restore(self) -> None:
        if not (path := self.folder / _CHECKPOINT).exists():
            return
        tensors, metadata = read_tensors(path)
        if (found := metadata["settings"]) != self._settings():
            raise InputError(
                "a run that began with other settings cannot be continued",
                where=str(self.folder),
                expected=self._settings(),
                found=found,
                hint="name another folder of runs, or remove this one",
            )

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        self.trainer.optimizer.load(part("optimizer/"))
        self.curve = json.loads(metadata["curve"])


def _batch(train: Sequences, config: SasRecConfig, random: np.random.Generator) -> Batch:
    lengths = train.lengths
    last = np.zeros(len(train.item_A), bool)
    last[train.offsets[1:] - 1] = True
    first = np.zeros(len(train.item_A), bool)
    first[train.offsets[:-1]] = True
    item_R, next_R = train.item_A[~last], train.item_A[~first]
    drawn = len(next_R) if config.loss == "bce" else config.negatives
    return {
        "key:user": np.arange(len(train)),
        "length": lengths - 1,
        "item": item_R,
        "next": next_R,
        "negative": random.integers(0, train.num_items, drawn),
    }


def _parts(users: Ids, size: int) -> Iterator[Ids]:
    for start in range(0, len(users), size):
        yield users[start : start + size]
