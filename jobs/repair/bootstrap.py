"""`derm bootstrap`: begin a new embedding space, side by side with the one readers see.

Trains both upstreams from scratch on the window that ends with a day, embeds the days before it
with what was learnt (back inference), fills new pools from them, and publishes the day once, at the
end, under keys of its own: the pointer flips from one space to the other. It is what a changed
model needs, and it runs, stops and continues as a backfill does.
"""

import argparse

from feature_store.contracts.base import Upstream, days_between, shift_day
from feature_store.contracts.errors import InputError, MissingInput
from feature_store.lake.lake import Lake
from jobs.console import day
from jobs.engine import unfinished
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import catalog, daily
from jobs.recipes import recipe_of
from jobs.repair import backfill
from jobs.repair.starting_points import Record, estimate, records_of, survey
from jobs.settings import Home, Settings

_PER_DAY = ("infer", "dedup", "merge", "verify")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm bootstrap`."""
    parser.add_argument("--ds", type=day, help="day to publish; default: the last day with a pool")
    parser.add_argument(
        "--back",
        type=_not_negative,
        metavar="DAYS",
        help="earlier days to embed too; default: as many as the model is trained on",
    )
    backfill.configure_execution(parser)


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Show the plan, ask, execute it or continue it."""
    return backfill.show_and_run(args, settings, _begun_or_new)


def make_bootstrap(settings: Settings, ds: str | None, back: int | None) -> unfinished.BackfillPlan:
    """Plan a new space.

    Args:
        ds: the day that is trained from scratch and published; None for the last day with a pool.
        back: how many days before it are embedded with its snapshot.

    Raises:
        InputError: later days are published already, or the day is before the home's first.
        MissingInput: no day was named and there is none with a pool.
    """
    home = Home.load(settings.home)
    chosen = recipe_of(home)
    manifests = ManifestStore(settings.home / "manifests")
    last = _last_pool(settings, home, manifests)
    trained, earliest = ds or last, max(home.start_ds, last or "")
    if trained is None:
        raise MissingInput("there is no pool yet", hint="name the day to publish: --ds DAY")
    if trained < earliest:
        raise InputError(
            f"no space can begin on {trained}",
            expected=f"{earliest} or later: every day after it belongs to the space",
            found=trained,
        )
    wanted = shift_day(trained, -(chosen.training.window_days - 1 if back is None else back))
    first = max(wanted, home.start_ds)
    window = max(shift_day(trained, 1 - chosen.training.window_days), home.first_ds)
    pipeline = catalog.pipeline_of(home)
    steps = _Steps(records_of(manifests), pipeline)
    for missing in days_between(min(first, window), trained):
        if manifests.get(daily.HISTORY[-1], missing, None) is None:
            steps.add_day(missing, [s.name for s in pipeline.steps])
    steps.add_space(first, trained)
    return unfinished.BackfillPlan(
        corrupted=(trained,),
        what="space",
        retrain=True,
        base=None,
        first=first,
        last=trained,
        steps=tuple(steps.planned),
    )


class _Steps:
    """Collects the steps of a plan."""

    def __init__(self, records: dict[str, Record], pipeline: catalog.Pipeline) -> None:
        self.planned: list[unfinished.PlannedStep] = []
        self._records, self._pipeline = records, pipeline

    def add_day(self, ds: str, available: list[str]) -> None:
        """Bring a day of the training window into the lake."""
        for name in daily.HISTORY:
            if name in available:
                self._add(name, ds, None)

    def add_space(self, first: str, trained: str) -> None:
        """Train, embed and merge every day, publish the last."""
        for upstream in self._pipeline.names:
            self._add("train", trained, upstream)
        for ds in days_between(first, trained):
            for upstream in self._pipeline.names:
                for name in _PER_DAY:
                    later = trained if name == "infer" and ds < trained else None
                    self._add(name, ds, upstream, snapshot_of=later)
        for upstream in self._pipeline.published:
            self._add("index", trained, upstream)
            self._add("publish", trained, upstream)
        for name in ("release", "audit", "report"):
            self._add(name, trained, None)

    def _add(
        self, step: str, ds: str, upstream: Upstream | None, snapshot_of: str | None = None
    ) -> None:
        record = estimate(self._records, (step, ds, upstream))
        self.planned.append(
            unfinished.PlannedStep(
                step=step,
                ds=ds,
                upstream=upstream,
                snapshot_of=snapshot_of,
                writes=self._pipeline.outputs_of(catalog.step(step), upstream),
                rows=record.rows,
                seconds=record.seconds,
            )
        )


def _begun_or_new(args: argparse.Namespace, settings: Settings) -> unfinished.Repair:
    """The bootstrap that was begun, if it is the one that is asked for; else a new one.

    Raises:
        InputError: another repair was begun.
    """
    progress = unfinished.load(settings.home)
    if progress is None:
        return unfinished.Repair(plan=make_bootstrap(settings, args.ds, args.back))
    planned = progress.plan
    back = len(days_between(planned.first, planned.last)) - 1
    asked = (args.ds or planned.last, back if args.back is None else args.back)
    if planned.what == "space" and asked == (planned.last, back):
        return progress
    raise unfinished.another_has_begun(settings, planned, f"derm bootstrap --ds {asked[0]}")


def _last_pool(settings: Settings, home: Home, manifests: ManifestStore) -> str | None:
    try:
        return survey(home, Lake(settings.lake_root), manifests).last
    except MissingInput:
        return None


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"expected a number of days >= 0, found {text}")
    return number
