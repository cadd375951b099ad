"""Variants of the upstream model on simulated worlds, and what their embeddings are worth.

One run trains a variant on a window, then lives through the days that follow as production does:
score the day, compare what yesterday's embeddings predicted of it, train on it, embed it.

Shapes: N rows, U users, P Pins, E embedding width.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from experiments.quality import Vectors, dot_auc, recall_at
from feature_store.contracts.base import ENTITIES, Entity, Upstream, days_between, shift_day
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from feature_store.spark.tasks import run_here
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.settings import Home, Settings
from jobs.steps import ingest, simulate
from jobs.steps.count import count_day
from jobs.steps.training_run import first_window
from models.derm.features import ModelInputs
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.training.determinism import make_deterministic, seed_for, seed_torch
from models.training.loop import Trainer
from models.training.metrics import effective_rank

FIRST = "2025-03-01"
TOP_K = 10
_WEEK = 7
_EMBED_ROWS = 2048

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to build or train the upstream model.

    Attributes:
        ssl_weight: lambda, the weight of the self-supervised loss.
        context_in_user_tower: let what is known only at the impression into the user's embedding;
            built here alone, the model of the pipeline cannot express it.
        regime: `incremental` trains on every new day; `weekly` trains from scratch on the window
            every seventh day, and not at all in between.
    """

    name: str
    ssl_weight: float = 0.1
    context_in_user_tower: bool = False
    regime: Literal["incremental", "weekly"] = "incremental"


BASELINE = Variant(name="baseline")
VARIANTS = (
    BASELINE,
    Variant(name="lambda 0", ssl_weight=0.0),
    Variant(name="lambda 0.01", ssl_weight=0.01),
    Variant(name="lambda 0.03", ssl_weight=0.03),
    Variant(name="lambda 0.3", ssl_weight=0.3),
    Variant(name="lambda 1", ssl_weight=1.0),
    Variant(name="context in user tower", context_in_user_tower=True),
    Variant(name="weekly retrain", regime="weekly"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How long a run is, and on which model and world.

    Attributes:
        window: days of a training from scratch.
        days: days after it, each of which is measured.
    """

    recipe: str = "toy"
    window: int = 5
    days: int = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one variant measured with one seed; a dictionary of metrics per day."""

    variant: str
    seed: int
    upstream: Upstream
    days: tuple[Metrics, ...]


def run(variant: Variant, seed: int, upstream: Upstream, size: Size) -> Run:
    """Simulate a world, live through it with one variant, measure.

    Args:
        seed: of the world and of the model; variants of one seed see the same events.
    """
    make_deterministic(threads=1)
    with TemporaryDirectory(prefix="experiment-") as folder:
        ctx = _world(Path(folder), seed, upstream, size)
        return Run(
            variant=variant.name,
            seed=seed,
            upstream=upstream,
            days=tuple(_Life(ctx, variant, upstream, size).days()),
        )


def _world(root: Path, seed: int, upstream: Upstream, size: Size) -> RunContext:
    """A lake with the days of one simulated world."""
    days = days_between(FIRST, shift_day(FIRST, size.window + size.days - 1))
    Home(
        dataset="simulated", recipe=size.recipe, first_ds=FIRST, start_ds=days[-1], seed=seed
    ).save(root)
    settings = Settings(home=root, threads=1)
    for ds in days:
        ctx = open_context(settings, ds, upstream)
        simulate.run(ctx)
        ingest.run(ctx)
        count_day(ctx, run_here)
    return ctx


class _Life:
    """A variant's days."""

    def __init__(self, ctx: RunContext, variant: Variant, upstream: Upstream, size: Size) -> None:
        self.ctx, self.variant, self.upstream, self.size = ctx, variant, upstream, size
        self.config = ctx.recipe.training
        self.pools: dict[Entity, Vectors] = {}

    def days(self) -> Iterator[Metrics]:
        """Measure and train, day by day."""
        self._begin(shift_day(FIRST, self.size.window - 1))
        for number in range(self.size.days):
            ds = shift_day(FIRST, self.size.window + number)
            found = self._foretold(ds)
            anew = self.variant.regime == "weekly" and (number + 1) % _WEEK == 0
            if anew:
                self._begin(ds)
            elif self.variant.regime == "incremental":
                self._train(ds)
            yield found | self._embed(ds, compare=not anew)

    def _begin(self, last: str) -> None:
        """Train from scratch on the window that ends with `last`, and fill the pools from it."""
        days = days_between(shift_day(last, 1 - self.size.window), last)
        seed_torch(self.ctx.home.seed, self.upstream, "initialise")
        loss = dataclasses.replace(self.ctx.recipe.model.loss, ssl_weight=self.variant.ssl_weight)
        model = dataclasses.replace(self.ctx.recipe.model, loss=loss)
        objective = DermObjective(DermModel(self._inputs(), model))
        objective.model.fit(first_window(self.ctx, days, self.upstream))
        self.trainer = Trainer(
            objective,
            self.config,
            torch.device("cpu"),
            learning_rate=self.config.learning_rate,
            empty=self._examples(last).empty(),
        )
        for ds in days:
            self._train(ds)
        self.trainer.optimizer.set_learning_rate(self.config.incremental_learning_rate)
        self.pools = {}
        for ds in days:
            self._embed(ds)

    def _inputs(self) -> ModelInputs:
        inputs = ModelInputs.of(self.ctx.spec, self.upstream)
        if not self.variant.context_in_user_tower:
            return inputs
        moved = tuple(f.model_copy(update={"scope": "user"}) for f in inputs.context)
        return dataclasses.replace(inputs, user=(*inputs.user, *moved))

    def _examples(self, ds: str) -> DayExamples:
        ctx = self.ctx
        return DayExamples(ctx.lake, ctx.spec, ds, self.upstream, ctx.counting)

    def _batches(self, ds: str, order: Order) -> Iterator[Arrays]:
        # A tower that reads the context has another input for every event of a user.
        distinct = not self.variant.context_in_user_tower
        return self._examples(ds).batches(dataclasses.replace(order, distinct=distinct))

    def _train(self, ds: str) -> None:
        seed = self.ctx.home.seed
        order = Order(
            batch_rows=self.config.batch_rows,
            seed=seed_for(seed, self.upstream, ds, "shuffle"),
            random_pins=self.ctx.recipe.model.loss.random_negatives,
        )
        batches = self._batches(ds, order)
        self.trainer.train(batches, seed=(seed, self.upstream, ds, "all"))

    def _foretold(self, ds: str) -> Metrics:
        """What the model and the embeddings of the day before say about a day."""
        rows = list(self._batches(ds, Order(batch_rows=_EMBED_ROWS)))
        task = self.trainer.objective.model.inputs.tasks[0]
        scores = self.trainer.score(rows)[task]
        users, pins = self.pools["user"], self.pools["pin"]
        user_N, pin_N = (_column(rows, f"key:{e}") for e in ENTITIES)
        clicked_N = _column(rows, f"label:{task}")
        return {
            "auc": _number(scores["auc"]),
            "ne": _number(scores["ne"]),
            "dot_auc": dot_auc(users, pins, user_N, pin_N, clicked_N),
            f"recall_at_{TOP_K}": recall_at(TOP_K, users, pins, user_N, pin_N, clicked_N),
        }

    def _embed(self, ds: str, *, compare: bool = True) -> Metrics:
        """Embed a day, the last event of an entity counts; carry the others over.

        Args:
            compare: with what the pools hold; not on the day of a new space, whose pools hold
                that day already.
        """
        parts: dict[Entity, list[tuple[npt.NDArray, npt.NDArray]]] = {"user": [], "pin": []}
        for batch in self._batches(ds, Order(batch_rows=_EMBED_ROWS)):
            found = self.trainer.embed(batch)
            for entity in ENTITIES:
                parts[entity].append((batch[f"key:{entity}"], found[entity].numpy()))
        metrics: Metrics = {}
        for entity in ENTITIES:
            keys, vectors = (np.concatenate(column) for column in zip(*parts[entity], strict=True))
            today = Vectors.last(keys, vectors)
            past = self.pools.get(entity)
            if compare and past is not None:
                metrics[f"cosine_{entity}"] = today.mean_cosine(past)
            rank = effective_rank(torch.from_numpy(today.vectors_NE[:_EMBED_ROWS]))
            metrics[f"effective_rank_{entity}"] = rank
            self.pools[entity] = today if past is None else past.updated(today)
        return metrics


def _column(batches: list[Arrays], name: str) -> npt.NDArray:
    return np.concatenate([batch[name] for batch in batches])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
