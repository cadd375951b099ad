"""Days of a market that is old enough for long histories, in a lake, with what is true of them."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from experiments.harness.folders import folder_of
from feature_store.contracts.base import Upstream, days_between, shift_day
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from feature_store.spark.tasks import run_here
from jobs.datasets.registry import simulated_folder
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.settings import Home, Settings
from jobs.steps import ingest, simulate
from jobs.steps.count import count_day
from models.training.determinism import seed_for

Floats = npt.NDArray[np.float64]

FIRST = "2025-01-01"
LEARNS: Upstream = "ctr"
_SHOWN_ROWS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceDays:
    """Which days of a world are used.

    Attributes:
        recipe: of the world's size.
        before: days that go by first, so that histories are long.
        learn: days that are learned, one pass each.
        batch_rows: rows of a step.
    """

    recipe: str = "toy"
    before: int = 95
    learn: int = 6
    batch_rows: int = 1024

    def __post_init__(self) -> None:
        for name in ("before", "learn", "batch_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")

    @property
    def learned(self) -> tuple[str, ...]:
        """The days that are learned."""
        first = shift_day(FIRST, self.before)
        return days_between(first, shift_day(first, self.learn - 1))

    @property
    def held_out(self) -> tuple[str, str]:
        """Two days after them: one that calibrations are fitted on, one that all is measured on."""
        last = self.learned[-1]
        return shift_day(last, 1), shift_day(last, 2)


class MarketDays:
    """A lake with the days of one market; the folder goes with it."""

    def __init__(self, dataset: str, seed: int, days: SurfaceDays) -> None:
        self.root, self.days, self.seed = folder_of(self), days, seed
        used = (*days.learned, *days.held_out)
        home = Home(
            dataset=dataset, recipe=days.recipe, first_ds=used[0], start_ds=used[-1], seed=seed
        )
        home.save(self.root)
        self.settings = Settings(home=self.root, threads=1)
        began = home.model_copy(update={"first_ds": FIRST})
        for ds in used:
            ctx = open_context(self.settings, ds, None)
            # The world is older than what is ingested of it.
            simulate.run(dataclasses.replace(ctx, home=began))
            ingest.run(ctx)
            count_day(ctx, run_here)
        self._read: dict[str, list[Arrays]] = {}

    def context(self) -> RunContext:
        """What a step of the first learned day would be handed."""
        return open_context(self.settings, self.days.learned[0], LEARNS)

    def batches(self, ds: str) -> list[Arrays]:
        """The rows of a day: to learn, permuted; held out, its impressions as the lake has them."""
        if ds not in self._read:
            learned = ds in self.days.learned
            order = Order(
                batch_rows=self.days.batch_rows if learned else _SHOWN_ROWS,
                seed=seed_for(self.seed, ds, "shuffle") if learned else None,
                rows="impressions",
            )
            ctx = self.context()
            examples = DayExamples(ctx.lake, ctx.spec, ds, LEARNS, ctx.counting)
            self._read[ds] = list(examples.batches(order))
        return self._read[ds]

    def chances(self, ds: str) -> Floats:
        """The true chance of a click of each impression of a day, in the order of the lake."""
        ctx = self.context()
        events = ctx.lake.dataset(ctx.spec.events_table(), [ds])
        shown = events.to_table(columns=["event_id"], filter=pc.field("arrived_at").is_null())
        path = simulated_folder(self.root) / f"ds={ds}" / "truth.parquet"
        told = pq.read_table(path)
        at = pc.index_in(shown["event_id"], value_set=told["event_id"].combine_chunks())
        found: Floats = told["p_click"].take(at).to_numpy().astype(np.float64)
        return found


@lru_cache(maxsize=1)
def market_days(dataset: str, seed: int, days: SurfaceDays) -> MarketDays:
    """The days of a world; a process keeps the last ones, for the next variant."""
    return MarketDays(dataset, seed, days)
