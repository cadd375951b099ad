"""A ranker that learns some days of a world with some pools, and what it is worth after them.

Shapes: B rows, U entities of a batch, N rows of a day.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import torch
from sklearn.metrics import average_precision_score

from experiments.harness.design import Variant
from experiments.quality import Metrics, of_predictions
from experiments.ranking.embedded import UPSTREAMS, Days, Key, embedded
from experiments.ranking.pools import Dailies, Ints, Placebo, Pools, aggregated, replaced
from experiments.truth import Truth, impression_numbers
from experiments.upstream_days import FIRST
from feature_store.config import AggregationConfig
from feature_store.contracts.base import ENTITIES, Entity, Upstream, shift_day
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from feature_store.reading.pools import PoolInput
from jobs.steps.training_run import first_window
from models.rankers.config import CtrConfig, RankerConfig
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.training.determinism import make_deterministic, seed_for, seed_torch
from models.training.loop import Trainer
from simulator.population import Population

_DAY_S, _SHOWN_ROWS = 86_400, 2048
_FIRST = int(np.datetime64(FIRST, "D").astype(np.int64))
ALL: tuple[Key, ...] = tuple((u, e) for u in UPSTREAMS for e in ENTITIES)


Heuristic = Literal["acc", "ma", "ap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked(Variant):
    """A ranker over some pools; over none where `sets` is empty.

    Attributes:
        sets: whose vectors it reads.
        heuristic, w: what makes pools of the vectors of days.
        lag: days between a pool and who joins with it; 0 is a leak.
        back: vectors of the days that rankers learn are said again by the model of the last one.
        replaced: what the vectors are replaced with, where it is a placebo.
        projection: share of the width of the embedding block that it is projected to; 0: none.
    """

    sets: tuple[Key, ...] = ()
    heuristic: Heuristic = "ma"
    w: float = 0.8
    lag: int = 1
    back: bool = False
    replaced: Placebo | None = None
    projection: float = 0.0


@dataclass(frozen=True, slots=True)
class _Day:
    """A day's rows: to learn from, and its impressions in the order of the lake."""

    learned: list[Arrays]
    shown: list[Arrays]


def measured(variant: Ranked, learns: Upstream, seed: int, days: Days) -> tuple[Metrics, ...]:
    """What a ranker is worth on each of the days that it has not seen.

    Args:
        learns: the upstream whose labels are its tasks.

    Returns:
        By day the levels `auc_true`, `auc` and `pr`, the lifts of the first and the last over the
        ranker without embeddings in percent, and `rows_per_s` that it has learned.
    """
    found = _levels(variant, learns, seed, days)
    without = _without(learns, seed, days) if variant.sets else found
    return tuple(
        {
            **mine,
            "lift": 100 * (mine["auc_true"] / bare["auc_true"] - 1),
            "lift_pr": 100 * (mine["pr"] / bare["pr"] - 1),
        }
        for mine, bare in zip(found, without, strict=True)
    )


@lru_cache(maxsize=1)
def _without(learns: Upstream, seed: int, days: Days) -> tuple[Metrics, ...]:
    return _levels(Ranked(name="none"), learns, seed, days)


def _levels(variant: Ranked, learns: Upstream, seed: int, days: Days) -> tuple[Metrics, ...]:
    make_deterministic(threads=1)
    ranking = _Ranking(variant, learns, seed, days)
    rows_per_s = ranking.learn()
    return tuple({**ranking.score(n), "rows_per_s": rows_per_s} for n in days.measured)


class _Ranking:
    """A variant of a ranker on the world of a seed."""

    def __init__(self, variant: Ranked, learns: Upstream, seed: int, days: Days) -> None:
        found = embedded(seed, days)
        self.ctx = found.world.context(learns)
        self.variant, self.learns, self.days, self.seed = variant, learns, days, seed
        self.pools = _pools(found.back if variant.back else found.daily, variant, seed)
        self.trainer = self._new()
        world = Population(self.ctx.recipe.simulation, seed)
        self.truth = Truth(world, self.trainer.objective.tasks[0])

    def learn(self) -> float:
        """Learn the days; rows a second of processor time."""
        rows, began = 0, time.process_time()
        for number in self.days.learned:
            batches = self._joined(self._day(number).learned)
            named = (self.seed, self.learns, self.days.day(number))
            rows += self.trainer.train(batches, seed=named).rows
        return rows / max(time.process_time() - began, 1e-9)

    def score(self, number: int) -> Metrics:
        """What it is worth on the impressions of a day that it has not learned."""
        shown = self._joined(self._day(number).shown)
        logits_N = torch.cat([self.trainer.predict(batch)[:, 0] for batch in shown])
        events = self.ctx.lake.dataset(self.ctx.spec.events_table(), [self.days.day(number)])
        ids = events.to_table(columns=["event_id"], filter=pc.field("arrived_at").is_null())
        told = self.truth.day(number).take(impression_numbers(ids["event_id"]))
        chance_N = torch.sigmoid(logits_N.double()).numpy()
        found = of_predictions(chance_N, told, number)
        return {
            "auc_true": found["auc_true"],
            "auc": found["auc_eventual"],
            "pr": float(average_precision_score(told.label_N(), chance_N)),
        }

    def _new(self) -> Trainer:
        """A ranker that has learned nothing, as the recipe makes it."""
        features = [
            PoolInput(upstream=u, entity=e, dim=pool.vectors_DNE.shape[2], since="").feature
            for (u, e), pool in self.pools.items()
        ]
        recipe = self.ctx.recipe.ranking
        config: RankerConfig = recipe.families["cvr" if self.learns == "cvr" else "ctr"]
        if self.variant.projection and isinstance(config, CtrConfig):
            width = round(self.variant.projection * sum(f.dim for f in features))
            config = dataclasses.replace(config, projection=width)
        seed_torch(self.seed, self.learns, "initialise a ranker")
        inputs = RankingInputs.of(self.ctx.spec, self.learns, features)
        objective = RankingObjective(inputs, config)
        learned = tuple(self.days.day(n) for n in self.days.learned)
        objective.fit(first_window(self.ctx, learned, self.learns))
        rate = recipe.training.learning_rate
        cpu = torch.device("cpu")
        return Trainer(objective, recipe.training, cpu, learning_rate=rate, empty={})

    def _day(self, number: int) -> _Day:
        return _day(self.seed, self.learns, self.days, number)

    def _joined(self, batches: list[Arrays]) -> Iterator[Arrays]:
        """Batches with the vectors of their entities, as of the days of their rows."""
        for batch in batches:
            joined = dict(batch)
            for (upstream, entity), pool in self.pools.items():
                day_U, key_U = _entities(batch, entity)
                vectors_UE = pool.take(day_U - self.variant.lag, key_U)
                joined[f"{entity}_{upstream}_vector"] = vectors_UE
            yield joined


def _pools(dailies: Mapping[Key, Dailies], variant: Ranked, seed: int) -> dict[Key, Pools]:
    config = AggregationConfig(heuristic=variant.heuristic, w=variant.w)
    pools = {key: aggregated(dailies[key], config) for key in variant.sets}
    if variant.replaced is None:
        return pools
    placebo = variant.replaced
    return {key: replaced(x, placebo, seed + i) for i, (key, x) in enumerate(pools.items())}


def _entities(batch: Arrays, entity: Entity) -> tuple[Ints, Ints]:
    """The day, counted from the world's first, and the key of each distinct entity of a batch."""
    row_B = batch[f"row:{entity}"]
    day_U = np.zeros(row_B.max() + 1, np.int64)
    key_U = np.zeros_like(day_U)
    day_U[row_B] = batch["ts"].astype(np.int64) // _DAY_S - _FIRST
    key_U[row_B] = batch[f"key:{entity}"]
    return day_U, key_U


@lru_cache(maxsize=16)
def _day(seed: int, learns: Upstream, days: Days, number: int) -> _Day:
    """The rows of a day without vectors; a process keeps those of a world, for the next variant."""
    ctx, ds = embedded(seed, days).world.context(learns), days.day(number)
    recipe = ctx.recipe.ranking
    # Of impressions before the second day no pool knows anybody.
    since = max(shift_day(ds, -recipe.late_days), days.day(1))
    examples = DayExamples(ctx.lake, ctx.spec, ds, learns, ctx.counting, late_since=since)
    order = Order(
        batch_rows=recipe.training.batch_rows,
        chunk_rows=recipe.training.shuffle_rows,
        seed=seed_for(seed, learns, ds, "shuffle a ranker"),
    )
    shown = Order(batch_rows=_SHOWN_ROWS, rows="impressions")
    return _Day(list(examples.batches(order)), list(examples.batches(shown)))
