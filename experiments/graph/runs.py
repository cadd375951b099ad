"""Train a model on a public graph pass by pass; resumable, validation chooses the pass.

In the folder of a run lie `curve.jsonl` (a line per validation), `checkpoint.safetensors` (where it
stands) and `best.safetensors` (what validation chose).
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.graph.triples import PublicGraph
from feature_store.contracts.atomic import write_atomic
from models.training.checkpoint import read_tensors, write_tensors
from models.training.determinism import make_deterministic
from models.transra.config import GraphConfig
from models.transra.graph import Triples
from models.transra.ranking import rank
from models.transra.training import GraphPass, GraphTrainer, new_model

log = logging.getLogger("derm")

_CHECKPOINT, _BEST, _CURVE = "checkpoint.safetensors", "best.safetensors", "curve.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class PassSchedule:
    """How long.

    Attributes:
        passes: at most.
        every: passes between validations.
        patience: validations without a better one after which it ends.
        validated: triples of the validation part that choose, evenly drawn; 0: all.
    """

    passes: int = 60
    every: int = 4
    patience: int = 4
    validated: int = 1500


class LinkRun:
    """One model, one graph, one seed.

    Attributes:
        passes, train_s: that are behind it, and seconds of this process's cores they took.
        curve: a line per validation.

    Args:
        folder: of the run; what is there is continued.
    """

    def __init__(
        self,
        config: GraphConfig,
        data: PublicGraph,
        schedule: PassSchedule,
        *,
        seed: int,
        folder: Path,
    ) -> None:
        self.data, self.schedule, self.folder = data, schedule, folder
        self.curve: list[dict[str, float]] = []
        self.passes, self.train_s = 0, 0.0
        make_deterministic(threads=1)
        self.trainer = GraphTrainer(new_model(data.graph, config, seed), data.graph, seed=seed)
        folder.mkdir(parents=True, exist_ok=True)

    def train(self) -> None:
        """Train to the end, from where an interrupted run stopped."""
        self._restore()
        while self.passes < self.schedule.passes and not self._tired():
            self._pass()

    def tested(self) -> dict[str, float]:
        """What the pass that validation chose reaches on the test part."""
        if (path := self.folder / _BEST).exists():
            self.trainer.load(read_tensors(path)[0])
        found = self._ranked(self.data.test)
        best = self.curve[self._best()] if self.curve else {}
        return {**found, "passes": best.get("passes", 0), "train_s": best.get("train_s", 0.0)}

    def _pass(self) -> None:
        """One pass, and a validation where one is due; then the run may be interrupted."""
        started = time.process_time()
        passed = self.trainer.train(self.passes)
        seconds = time.process_time() - started
        self.passes, self.train_s = self.passes + 1, self.train_s + seconds
        if self.passes % self.schedule.every == 0 or self.passes == self.schedule.passes:
            self._validate(passed, seconds)
        progress = {"passes": self.passes, "train_s": self.train_s, "curve": self.curve}
        write_tensors(
            self.folder / _CHECKPOINT, self.trainer.tensors(), {"progress": json.dumps(progress)}
        )

    def _validate(self, passed: GraphPass, seconds: float) -> None:
        line = {
            "passes": self.passes,
            "loss": round(passed.losses["fit"], 5),
            **{f"validation_{k}": round(v, 5) for k, v in self._validated().items()},
            "train_s": round(self.train_s, 1),
            "triples_per_s": round(passed.triples / seconds),
        }
        self.curve.append(line)
        log.info("%s: %s", self.folder.name, json.dumps(line))
        if self._best() == len(self.curve) - 1:
            write_tensors(self.folder / _BEST, self.trainer.tensors())
        write_atomic(self.folder / _CURVE, "".join(f"{json.dumps(row)}\n" for row in self.curve))

    def _validated(self) -> dict[str, float]:
        valid, wanted = self.data.valid, self.schedule.validated
        if not wanted or wanted >= len(valid):
            return self._ranked(valid)
        return self._ranked(valid.take(np.linspace(0, len(valid) - 1, wanted).astype(np.int64)))

    def _ranked(self, asked: Triples) -> dict[str, float]:
        data = self.data
        known = (data.graph.triples, data.valid, data.test)
        return rank(self.trainer.model, data.graph, asked, known).metrics()

    def _best(self) -> int:
        values = [line["validation_mrr"] for line in self.curve]
        return values.index(max(values))

    def _tired(self) -> bool:
        return bool(self.curve) and len(self.curve) - 1 - self._best() >= self.schedule.patience

    def _restore(self) -> None:
        if (path := self.folder / _CHECKPOINT).exists():
            tensors, metadata = read_tensors(path)
            self.trainer.load(tensors)
            progress = json.loads(metadata["progress"])
            self.passes, self.train_s = progress["passes"], progress["train_s"]
            self.curve = progress["curve"]
