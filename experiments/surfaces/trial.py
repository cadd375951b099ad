"""Rankers that learn some days of a market, all surfaces at once or each apart, and their worth.

Shapes: N rows of a day, S surfaces, T tasks.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from experiments.harness.design import Variant
from experiments.surfaces.worlds import LEARNS, Floats, MarketDays, SurfaceDays, market_days
from experiments.truth import expected_auc
from feature_store.reading.entities import Arrays
from jobs.steps.training_run import first_window
from models.nn.config import ExpertsConfig, SequenceConfig
from models.protocol import FirstWindow
from models.rankers import calibration
from models.rankers.calibration import LogitCounts
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.config import HistoryConfig, TreeConfig, UnifiedConfig
from models.training.config import TrainingConfig
from models.training.determinism import make_deterministic, seed_torch
from models.training.loop import Trainer

_EXPERTS, _BINS, _PRIOR_ROWS = 6, 20, 100
_HIDDEN = (64, 32)
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part(Variant):
    """A ranker with some of its parts.

    Attributes:
        apart: a ranker for each surface, that learns and scores its own rows alone.
        experts: how many; 1 is a shared bottom, whose one expert is as wide as all together.
        history, projection, candidate, trees, own, root: parts of the unified ranker.
        again: other initial weights.
    """

    apart: bool = False
    experts: int = _EXPERTS
    history: bool = True
    projection: bool = True
    candidate: bool = True
    trees: bool = True
    own: bool = True
    root: bool = True
    again: bool = False

    @property
    def config(self) -> UnifiedConfig:
        """What it is made of."""
        one = self.experts == 1
        hidden = (_HIDDEN[0] * _EXPERTS, _HIDDEN[1]) if one else _HIDDEN
        return UnifiedConfig(
            categorical_dim=8,
            sequence=SequenceConfig(max_len=16),
            sequence_dim=16,
            history=HistoryConfig(
                max_len=64 if self.history else 0,
                width=16,
                num_layers=1,
                latest=4,
                candidate=self.candidate,
                projection=32 if self.projection else 0,
                cross_rank=8,
            ),
            experts=ExpertsConfig(
                num_experts=self.experts,
                gate="per_task" if self.trees else "shared",
                cross_layers=2,
                cross_rank=16,
                hidden=hidden,
            ),
            tree=TreeConfig(per_surface=self.trees, own=self.own),
            weights="root" if self.root else "even",
        )


TRAINING = TrainingConfig(learning_rate=2e-3, weight_decay=0.01, prefetch_batches=0)


def measured(variant: Part, dataset: str, seed: int, days: SurfaceDays) -> Metrics:
    """What a ranker is worth on a day that it has not learned, surface by surface."""
    make_deterministic(threads=1)
    world = market_days(dataset, seed, days)
    trial = Trial(world, variant)
    rows_per_s = trial.learn()
    fitted_on, scored = (trial.score(ds) for ds in days.held_out)
    counts = _counted(fitted_on, len(trial.surfaces))
    metrics: Metrics = {"rows_per_s": rows_per_s, "parameters": trial.parameters / 1e3}
    chance_N = world.chances(days.held_out[1])
    metrics["auc"] = expected_auc(scored.logit_N, chance_N)
    for number, name in enumerate(trial.surfaces, 1):
        mine = scored.surface_N == number
        metrics[f"auc_{name}"] = expected_auc(scored.logit_N[mine], chance_N[mine])
    for way, fitted_S2 in _calibrations(counts).items():
        told = calibration.apply(
            torch.from_numpy(fitted_S2)[None],
            torch.from_numpy(scored.logit_N)[:, None],
            torch.from_numpy(scored.surface_N),
        )
        for number, name in enumerate(trial.surfaces, 1):
            mine = scored.surface_N == number
            ece, ratio = _against(told[:, 0].numpy()[mine], chance_N[mine])
            metrics |= {f"ece_{way}_{name}": 1e3 * ece, f"ratio_{way}_{name}": ratio}
    return metrics


@dataclass(frozen=True, slots=True)
class _Scored:
    logit_N: Floats
    label_N: Floats
    surface_N: np.ndarray


class Trial:
    """A variant on a world."""

    def __init__(self, world: MarketDays, variant: Part) -> None:
        self.world, self.variant = world, variant
        self.ctx = world.context()
        self.surfaces = self.ctx.spec.surfaces
        window = first_window(self.ctx, world.days.learned, LEARNS)
        groups: Iterable[int] = range(1, len(self.surfaces) + 1) if variant.apart else (0,)
        # By surface; 0 is all of them.
        self.trainers = {group: self._new(group, window) for group in groups}

    @property
    def parameters(self) -> int:
        """How many numbers are learned, of all rankers together."""
        learned = [t.objective.parameters() for t in self.trainers.values()]
        return sum(p.numel() for each in learned for p in each)

    def learn(self) -> float:
        """Learn the days; rows a second of processor time."""
        rows, began = 0, time.process_time()
        for ds in self.world.days.learned:
            for group, trainer in self.trainers.items():
                seed = (self.world.seed, ds, group)
                rows += trainer.train(self._of(self.world.batches(ds), group), seed=seed).rows
        return rows / max(time.process_time() - began, 1e-9)

    def score(self, ds: str) -> _Scored:
        """The logits of a day's impressions, each by the ranker of its surface."""
        logits: list[Tensor] = []
        batches = self.world.batches(ds)
        for batch in batches:
            found_B = torch.zeros(len(batch["ts"]), dtype=torch.float64)
            for group, trainer in self.trainers.items():
                at = np.flatnonzero(batch["surface"] == group) if group else np.arange(len(found_B))
                if len(at):
                    told_b = trainer.predict(taken(batch, at))[:, 0].double()
                    found_B[torch.from_numpy(at)] = told_b
            logits.append(found_B)
        task = self.trainers[next(iter(self.trainers))].objective.tasks[0]
        return _Scored(
            torch.cat(logits).numpy(),
            np.concatenate([b[f"label:{task}"] for b in batches]).astype(np.float64),
            np.concatenate([b["surface"] for b in batches]).astype(np.int64),
        )

    def _new(self, group: int, window: FirstWindow) -> Trainer:
        name = "again" if self.variant.again else "once"
        seed_torch(self.world.seed, group, name, "initialise")
        inputs = RankingInputs.of(self.ctx.spec, LEARNS, ())
        objective = RankingObjective(inputs, self.variant.config)
        objective.fit(window)
        training = dataclasses.replace(TRAINING, batch_rows=self.world.days.batch_rows)
        cpu = torch.device("cpu")
        rate = training.learning_rate
        return Trainer(objective, training, cpu, learning_rate=rate, empty={})

    def _of(self, batches: list[Arrays], group: int) -> Iterator[Arrays]:
        """Batches of one surface's rows: as many rows, so as many steps a row, as of all."""
        if not group:
            yield from batches
            return
        for batch in batches:
            at = np.flatnonzero(batch["surface"] == group)
            if len(at):
                yield taken(batch, at)


def taken(batch: Arrays, at: np.ndarray) -> Arrays:
    """Some rows of a batch, with the distinct entities that they are about."""
    found: dict[str, np.ndarray] = {}
    kept = {e: np.unique(batch[f"row:{e}"][at], return_inverse=True) for e in ("user", "pin")}
    rows = len(batch["ts"])
    lengths = {e: int(batch[f"row:{e}"].max()) + 1 for e in kept}
    of_entity = _entity_columns(batch)
    for name, array in batch.items():
        entity = of_entity.get(name)
        if name.startswith("row:"):
            found[name] = kept[name.removeprefix("row:")][1]
        elif entity:
            found[name] = array[: lengths[entity]][kept[entity][0]]
        elif len(array) == rows:
            found[name] = array[at]
    return found


def _entity_columns(batch: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Which entity each column of a batch of distinct entities is of."""
    names = list(batch)
    first = {e: names.index(f"row:{e}") for e in ("user", "pin")}
    return {
        name: "user" if first["user"] < at < first["pin"] else "pin"
        for at, name in enumerate(names)
        if at > first["user"] and not name.startswith("row:")
    }


def _counted(scored: _Scored, surfaces: int) -> LogitCounts:
    counts = LogitCounts(1, surfaces)
    counts.update(
        torch.from_numpy(scored.logit_N)[:, None],
        torch.from_numpy(scored.label_N)[:, None],
        torch.from_numpy(scored.surface_N),
        torch.zeros(len(scored.logit_N), dtype=torch.bool),
    )
    return counts


Way = Literal["none", "global", "view"]


def _calibrations(counts: LogitCounts) -> dict[Way, Floats]:
    """Scales and shifts [S, 2]: none, one for all surfaces, one for each."""
    counts_TS2C = counts.counts_TS2C.numpy()
    none = calibration.untouched(1, counts_TS2C.shape[1] - 1)
    view = calibration.fit(counts_TS2C, none, _PRIOR_ROWS)
    shared = np.repeat(view[0, :1], len(view[0]), axis=0)
    return {"none": none[0], "global": shared, "view": view[0]}


def _against(told_N: Floats, chance_N: Floats) -> tuple[float, float]:
    """Expected calibration error against true chances, in bins of equal mass; and the ratio."""
    order = np.argsort(told_N, kind="stable")
    parts = np.array_split(order, _BINS)
    gaps = [abs(told_N[p].mean() - chance_N[p].mean()) * len(p) for p in parts if len(p)]
    return float(sum(gaps) / len(told_N)), float(told_N.sum() / chance_N.sum())
