"""A market with a past to pretrain tables on, and days after it that a ranker learns and is asked.

The past is kept as the rows that are positives, for tables are taught by nothing else; the days of
the ranker are a lake as the pipeline has it, with users, Pins and counts.

Shapes: N impressions.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from experiments.harness.folders import folder_of
from feature_store.contracts.base import Upstream, days_between, shift_day
from feature_store.lake.filing import impressions
from feature_store.lake.lake import Lake
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import DayExamples, Order
from feature_store.spark.tasks import run_here
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.settings import Home, Settings
from jobs.steps.count import count_day
from jobs.steps.training_run import first_window
from models.protocol import FirstWindow
from models.training.determinism import seed_for
from simulator.market.config import MARKETS, MarketConfig, toy
from simulator.market.world import Market
from simulator.world import WorldDay

FIRST = "2025-03-01"
UPSTREAM: Upstream = "ctr"
POSITIVE = ("closeup", "click", "save")
_COUNTED_BEFORE = 7
_BATCH_ROWS = 256

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketOptions:
    """How large a market is, and its calendar.

    Users and Pins are so few that ids repeat: of a market that is in no experiment (seed 1000), the
    median Pin of 21 days has 17 clicks and saves, the median user 52. That was counted, and the
    sizes chosen, before any model had seen such a market.

    Attributes:
        history: days that tables are pretrained on.
        stalest: days between them and the ranker's, at most.
        window: days that a ranker learns; `tested` days after them it is asked about.
    """

    data: Literal["market", "market_trees", "market_one_taste"] = "market"
    users: int = 200
    pins: int = 300
    ads: int = 100
    advertisers: int = 20
    history: int = 21
    stalest: int = 90
    window: int = 4
    tested: int = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least = 0 if field.name == "stalest" else 1
            value = getattr(self, field.name)
            if isinstance(value, int) and value < least:
                raise ValueError(f"{field.name}: expected >= {least}, found {value}")

    @property
    def begin(self) -> int:
        """The first day of the ranker."""
        return self.history + self.stalest

    @property
    def counted(self) -> int:
        """The first day whose impressions are counted."""
        return max(0, self.begin - _COUNTED_BEFORE)

    @property
    def days(self) -> int:
        """All that are simulated."""
        return self.begin + self.window + self.tested

    def market(self) -> MarketConfig:
        """The market."""
        return dataclasses.replace(
            MARKETS[self.data](toy()),
            users=self.users,
            pins=self.pins,
            ads=self.ads,
            advertisers=self.advertisers,
            days=self.days,
        )


@dataclass(frozen=True, slots=True)
class Tested:
    """Impressions that nobody was trained on.

    Attributes:
        batches: as rankers read them.
        chance_N: the true chance of a click; `click_N` what came of it.
    """

    batches: list[Arrays]
    chance_N: Floats
    click_N: Floats


class TablesWorld:
    """One simulated market."""

    def __init__(self, options: MarketOptions, seed: int) -> None:
        self.options, self.seed = options, seed
        root = folder_of(self, "experiment-tables-")
        market = Market(options.data, options.market(), seed, FIRST)
        self.spec = market.spec
        self._past: dict[int, dict[str, pa.Table]] = {}
        self._truth: list[pa.Table] = []
        first, last = (shift_day(FIRST, n) for n in (options.counted, options.days))
        Home(dataset=options.data, recipe="toy", first_ds=first, start_ds=last, seed=seed).save(
            root
        )
        self._context = dataclasses.replace(
            open_context(Settings(home=root, threads=1), first, UPSTREAM), spec=market.spec
        )
        for number in range(options.days):
            made = market.day(shift_day(FIRST, number))
            self._keep(number, made)
            if number >= options.counted:
                self._write(shift_day(FIRST, number), made)
            if number >= options.begin + options.window:
                self._truth.append(made.truth.select(["event_id", "p_click"]))

    def past(self, stale: int, folder: Path) -> tuple[Lake, str]:
        """The pretraining days that end so many days before the ranker's, as one day of a lake."""
        options = self.options
        last = options.begin - stale - 1
        days = [self._past[n] for n in range(last - options.history + 1, last + 1)]
        lake, ds = Lake(folder / "past"), shift_day(FIRST, last)
        events = pa.concat_tables([day["events"] for day in days])
        lake.overwrite(self.spec.events_table(), ds, events)
        for table in (self.spec.users_table(), self.spec.pins_table(), *self.spec.tables):
            # Offsite events are of every day; of all else the newest day says how it is.
            some = days if table.name == "offsite" else days[-1:]
            lake.overwrite(table, ds, pa.concat_tables([day[table.name] for day in some]))
        return lake, ds

    @cached_property
    def window(self) -> FirstWindow:
        """What the ranker's days say about features and labels."""
        return first_window(self._context, self._days(0, self.options.window), UPSTREAM)

    @cached_property
    def learned(self) -> list[Arrays]:
        """The batches that every ranker learns, in the order in which it does."""
        return [
            batch
            for ds in self._days(0, self.options.window)
            for batch in self._examples(ds).batches(
                Order(
                    batch_rows=_BATCH_ROWS,
                    rows="impressions",
                    seed=seed_for(self.seed, ds, "shuffle"),
                )
            )
        ]

    @cached_property
    def tested(self) -> Tested:
        """The days after them."""
        batches: list[Arrays] = []
        chances = []
        for ds, truth in zip(
            self._days(self.options.window, self.options.tested), self._truth, strict=True
        ):
            order = Order(batch_rows=_BATCH_ROWS, rows="impressions")
            batches += self._examples(ds).batches(order)
            events = self._context.lake.dataset(self.spec.events_table(), [ds])
            shown = events.to_table(columns=["event_id"], filter=pc.field("arrived_at").is_null())
            at = pc.index_in(shown["event_id"], value_set=truth["event_id"].combine_chunks())
            chances.append(truth["p_click"].take(at).to_numpy().astype(np.float64))
        clicks = np.concatenate([batch["label:click"] for batch in batches])
        return Tested(batches, np.concatenate(chances), clicks.astype(np.float64))

    def empty(self) -> Arrays:
        """A batch of no rows."""
        return {name: array[:0] for name, array in self.learned[0].items()}

    def _days(self, after: int, count: int) -> tuple[str, ...]:
        first = self.options.begin + after
        return tuple(days_between(shift_day(FIRST, first), shift_day(FIRST, first + count - 1)))

    def _examples(self, ds: str) -> DayExamples:
        ctx = self._context
        return DayExamples(ctx.lake, ctx.spec, ds, UPSTREAM, ctx.counting)

    def _keep(self, number: int, made: WorldDay) -> None:
        """What tables may be taught by."""
        options = self.options
        if number >= options.begin:
            return
        shown = pc.is_null(made.events["arrived_at"])
        acted = pc.is_in(made.events["action"], value_set=pa.array(POSITIVE))
        told = pc.fill_null(pc.equal(made.events["conversion"], 1), False)
        kept = made.events.filter(pc.or_(pc.and_(shown, acted), told))
        day = {"events": kept, "users": made.users, "pins": made.pins, **made.more}
        self._past[number] = day

    def _write(self, ds: str, made: WorldDay) -> None:
        ctx: RunContext = self._context.at(ds)
        ctx.lake.overwrite(self.spec.events_table(), ds, _shown(made.events))
        ctx.lake.overwrite(self.spec.users_table(), ds, made.users)
        ctx.lake.overwrite(self.spec.pins_table(), ds, made.pins)
        count_day(ctx, run_here)


def _shown(events: pa.Table) -> pa.Table:
    """Impressions alone: clicks are known at once, and nothing here asks what comes later."""
    return impressions(events)
