"""The days of one variant on one simulated world, as production lives them, and what they measure.

One run trains a variant on a window, then lives through the days that follow as production does:
score the day, compare what yesterday's pools foretold of it, train on it, embed it, merge pools.

Shapes: N rows, U users, P Pins, E embedding width.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch

from experiments.harness.design import Measured, Variant
from experiments.harness.folders import folder_of
from experiments.quality import Metrics, Vectors, dot_auc, of_predictions, recall_at
from experiments.references import Day, References
from experiments.truth import Truth, entity_numbers, impression_numbers
from feature_store.contracts.base import ENTITIES, Entity, Upstream, days_between, shift_day
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from feature_store.spark.tasks import run_here
from jobs.datasets.registry import dataset_spec
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.settings import Home, Settings
from jobs.steps import ingest, simulate
from jobs.steps.count import count_day
from jobs.steps.training_run import first_window
from models.derm.features import ModelInputs
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.training.delayed import Correction
from models.training.determinism import make_deterministic, seed_for, seed_torch
from models.training.loop import Trainer
from models.training.metrics import effective_rank
from simulator.market.config import SIMULATED
from simulator.population import Population

FIRST = "2025-03-01"
TOP_K = 10
_WEEK = 7
_EMBED_ROWS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamVariant(Variant):
    """One way to build or train the upstream model.

    Attributes:
        ssl_weight: lambda, the weight of the self-supervised loss.
        delayed: what is done about labels that arrive late.
        context_in_user_tower: let what is known only at the impression into the user's embedding;
            built here alone, the model of the pipeline cannot express it.
        regime: `incremental` trains on every new day; `weekly` trains from scratch on every day so
            far, which is what the incremental one has seen, every seventh day, and not at all in
            between.
    """

    ssl_weight: float = 0.1
    delayed: Correction = "taken_back"
    context_in_user_tower: bool = False
    regime: Literal["incremental", "weekly"] = "incremental"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which upstream, how long a run is, and on which model and world.

    Attributes:
        before: days that go by before anything is trained on; labels of theirs that are late still
            arrive, as they do in a world that did not just begin.
        window: days of the first training from scratch.
        days: days after it, each of which is measured.
    """

    upstream: Upstream = "ctr"
    recipe: str = "toy"
    before: int = 0
    window: int = 5
    days: int = 9

    def __post_init__(self) -> None:
        for name in ("window", "days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if self.before < 0:
            raise ValueError(f"before: expected >= 0, found {self.before}")
        declared = [u.name for u in dataset_spec(SIMULATED, "").declared_upstreams]
        if self.upstream not in declared:
            raise ValueError(f"upstream: expected one of {declared}, found {self.upstream}")

    def day(self, number: int) -> str:
        """A day, the first one of the window being 0."""
        return shift_day(FIRST, self.before + number)


def live(
    variant: UpstreamVariant, seed: int, options: Options, *, references: bool
) -> dict[str, Measured]:
    """Live through a simulated world with one variant, and measure every day of it.

    Args:
        seed: of the world and of the model; variants of one seed see the same events.
        references: measure what numbers are read against, too.
    """
    make_deterministic(threads=1)
    life = Life(world_of(seed, options), variant, options, references=references)
    found = {variant.name: Measured(rounds=tuple(life.days()))}
    return found | {n: Measured(rounds=tuple(days)) for n, days in life.references.items()}


class World:
    """A lake with the days of one simulated world; the folder goes with it."""

    def __init__(self, seed: int, options: Options) -> None:
        root = folder_of(self)
        days = days_between(FIRST, options.day(options.window + options.days - 1))
        Home(
            dataset="simulated", recipe=options.recipe, first_ds=FIRST, start_ds=days[-1], seed=seed
        ).save(root)
        self.settings = Settings(home=root, threads=1)
        for ds in days:
            ctx = open_context(self.settings, ds, None)
            simulate.run(ctx)
            ingest.run(ctx)
            count_day(ctx, run_here)

    def context(self, upstream: Upstream) -> RunContext:
        """What a step of the first day would be handed."""
        return open_context(self.settings, FIRST, upstream)


@lru_cache(maxsize=1)
def world_of(seed: int, options: Options) -> World:
    """The world of a seed; a process keeps the last one, for the next variant."""
    return World(seed, options)


class Life:
    """A variant's days.

    Attributes:
        references: by name, what references measured of the same days, where asked for.
    """

    def __init__(
        self, world: World, variant: UpstreamVariant, options: Options, *, references: bool
    ) -> None:
        self.upstream = upstream = options.upstream
        self.ctx = world.context(upstream)
        self.variant, self.options = variant, options
        self.config = self.ctx.own_recipe.training
        self.pools: dict[Entity, Vectors] = {}
        self.task = self.ctx.spec.labels_of(upstream)[0].name
        population = Population(self.ctx.recipe.simulation, self.ctx.home.seed)
        self.truth = Truth(population, self.task)
        self.references: dict[str, list[Metrics]] = {}
        self._compared: References | None = None
        if references:
            inputs = ModelInputs.of(self.ctx.spec, upstream)
            features = (*inputs.user, *inputs.pin, *inputs.context)
            rate = f"pin_{self.task}_rate_28d"
            self._compared = References(self.truth, features, rate, TOP_K)

    def days(self) -> Iterator[Metrics]:
        """Measure and train, day by day."""
        first = self.options.day(0)
        self.begin(days_between(first, self.options.day(self.options.window - 1)))
        for number in range(self.options.days):
            ds = self.options.day(self.options.window + number)
            rows = self.impressions(ds)
            found = self._foretold(ds, rows)
            anew = self.variant.regime == "weekly" and (number + 1) % _WEEK == 0
            if anew:
                self.begin(days_between(first, ds))
            elif self.variant.regime == "incremental":
                self.train(ds)
            yield found | self._embed(rows, compare=not anew)

    def begin(self, days: tuple[str, ...]) -> None:
        """Train from scratch on some days, and fill the pools from them."""
        seed_torch(self.ctx.home.seed, self.upstream, "initialise")
        loss = dataclasses.replace(
            self.ctx.own_recipe.model.loss,
            ssl_weight=self.variant.ssl_weight,
            delayed=self.variant.delayed,
        )
        model = dataclasses.replace(self.ctx.own_recipe.model, loss=loss)
        objective = DermObjective(DermModel(self._inputs(), model))
        objective.model.fit(first_window(self.ctx, days, self.upstream))
        self.trainer = Trainer(
            objective,
            self.config,
            torch.device("cpu"),
            learning_rate=self.config.learning_rate,
            empty=self.examples(days[-1]).empty(),
        )
        for ds in days:
            self.train(ds)
        self.trainer.optimizer.set_learning_rate(self.config.incremental_learning_rate)
        self.pools = {}
        first_time = self._compared is not None and not self.references
        for ds in days:
            rows = self.impressions(ds)
            self._embed(rows)
            if self._compared is not None and first_time:
                self._compared.see(self.day(ds, rows))

    def _inputs(self) -> ModelInputs:
        inputs = ModelInputs.of(self.ctx.spec, self.upstream)
        if not self.variant.context_in_user_tower:
            return inputs
        moved = tuple(f.model_copy(update={"scope": "user"}) for f in inputs.context)
        return dataclasses.replace(inputs, user=(*inputs.user, *moved))

    def examples(self, ds: str) -> DayExamples:
        """The examples of a day."""
        ctx = self.ctx
        return DayExamples(ctx.lake, ctx.spec, ds, self.upstream, ctx.counting)

    def train(self, ds: str) -> None:
        """Let the model learn a day."""
        seed = self.ctx.home.seed
        order = Order(
            batch_rows=self.config.batch_rows,
            together=self.config.together,
            seed=seed_for(seed, self.upstream, ds, "shuffle"),
            random_pins=self.ctx.own_recipe.model.loss.random_negatives,
            # A tower that reads the context has another input for every event of a user.
            distinct=not self.variant.context_in_user_tower,
        )
        batches = self.examples(ds).batches(order)
        self.trainer.train(batches, seed=(seed, self.upstream, ds, "all"))

    def impressions(self, ds: str) -> list[Arrays]:
        """The impressions of a day in the order of the lake, in batches."""
        order = Order(batch_rows=_EMBED_ROWS, rows="impressions", distinct=False)
        return list(self.examples(ds).batches(order))

    def day(self, ds: str, batches: list[Arrays]) -> Day:
        """A day's impressions with their truth."""
        events = self.ctx.lake.dataset(self.ctx.spec.events_table(), [ds])
        shown = events.to_table(
            columns=["event_id", "user_id", "pin_id"], filter=pc.field("arrived_at").is_null()
        )
        number = len(days_between(FIRST, ds)) - 1
        truth = self.truth.day(number).take(impression_numbers(shown["event_id"]))
        rows = {name: _column(batches, name) for name in batches[0]}
        users, pins = (entity_numbers(shown[f"{e}_id"]) for e in ENTITIES)
        return Day(number=number, rows=rows, truth=truth, users=users, pins=pins)

    def _foretold(self, ds: str, batches: list[Arrays]) -> Metrics:
        """What the model and the pools of the day before say about a day."""
        day = self.day(ds, batches)
        if self._compared is not None:
            for name, measured in self._compared.foretell(day).items():
                self.references.setdefault(name, []).append(measured)
            self._compared.see(day)
        logits_N = torch.cat([self.trainer.predict(batch)[:, 0] for batch in batches])
        users, pins = self.pools["user"], self.pools["pin"]
        user_N, pin_N = (day.rows[f"key:{e}"] for e in ENTITIES)
        chance_N = torch.sigmoid(logits_N.double()).numpy()
        positive_N = day.truth.label_N().astype(np.float32)
        return of_predictions(chance_N, day.truth, day.number) | {
            "dot_auc": dot_auc(users, pins, user_N, pin_N, day.truth.chance_N),
            f"recall_at_{TOP_K}": recall_at(TOP_K, users, pins, user_N, pin_N, positive_N),
        }

    def _embed(self, batches: list[Arrays], *, compare: bool = True) -> Metrics:
        """Embed who was seen, as of their last impression, and merge into the pools.

        Args:
            compare: with what the pools hold; not on the day of a new space, whose pools hold
                that day already.
        """
        metrics: Metrics = {}
        weight = self.ctx.own_recipe.aggregation.w
        for entity, today in self.vectors(batches).items():
            past = self.pools.get(entity)
            if compare and past is not None:
                metrics[f"cosine_{entity}"] = today.mean_cosine(past)
            rank = effective_rank(torch.from_numpy(today.vectors_NE[:_EMBED_ROWS]))
            metrics[f"effective_rank_{entity}"] = rank
            if compare or past is None:
                self.pools[entity] = today if past is None else past.merged(today, weight)
        return metrics

    def vectors(self, batches: list[Arrays]) -> dict[Entity, Vectors]:
        """The embeddings of everybody who was seen, as of their last impression."""
        found: dict[Entity, Vectors] = {}
        for entity in ENTITIES:
            key_N = _column(batches, f"key:{entity}")
            keys, newest = np.unique(key_N[::-1], return_index=True)
            last = len(key_N) - 1 - newest
            rows = {name: _column(batches, name)[last] for name in batches[0]}
            found[entity] = Vectors(keys, self.trainer.embed(rows, (entity,))[entity].numpy())
        return found


def _column(batches: list[Arrays], name: str) -> npt.NDArray:
    return np.concatenate([batch[name] for batch in batches])
