"""`derm bootstrap`: begin a new embedding space, side by side with the one readers see.

Trains both upstreams from scratch on the window that ends with a day, embeds the days before it
with what was learnt (back inference), fills new pools from them, and publishes the day once, at the
end, under keys of its own: the pointer flips from one space to the other. It is what a changed
model needs, and it runs, stops and continues as a backfill does.
"""

import argparse

from feature_store.contracts.artifacts import Raw
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.errors import InputError, MissingInput
from feature_store.lake.lake import Lake
from jobs.console import day
from jobs.engine import unfinished
from jobs.engine.manifests import ManifestStore
from jobs.pipelines import catalog, daily
from jobs.recipes import recipe_of
from jobs.repair import backfill
from jobs.repair.plan_builder import PlanBuilder
from jobs.repair.starting_points import records_of, survey
from jobs.settings import Home, Settings


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
    manifests = ManifestStore(settings.paths.manifests)
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
    plan = PlanBuilder(pipeline, records_of(manifests))
    for missing in days_between(min(first, window), trained):
        if manifests.get(daily.HISTORY[-1], missing, None) is None:
            for step in pipeline.steps:
                if step.history:
                    plan.add(step, missing, None)
    _add_space(plan, first, trained)
    return unfinished.BackfillPlan(
        corrupted=(trained,),
        what="space",
        retrain=True,
        base=None,
        first=first,
        last=trained,
        steps=tuple(plan.steps),
    )


def _add_space(plan: PlanBuilder, first: str, trained: str) -> None:
    """Train, embed and merge every day, publish the last."""
    plan.add_stages(trained, "model")
    for ds in days_between(first, trained):
        for step, upstream in plan.pipeline.in_order("embeddings"):
            embeds = any(isinstance(what, Raw) for what in step.outputs)
            plan.add(step, ds, upstream, snapshot_of=trained if embeds and ds < trained else None)
    plan.add_stages(trained, "publishing", "report")


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
