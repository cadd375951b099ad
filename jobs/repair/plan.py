"""Backfill arithmetic: what must be recomputed, in which order, from which good state.

`plan_repair` is pure: it sees a `Survey` of what is there and returns a plan. Every partition is a
function of named inputs, so a plan is the suffix of days from the first corrupted one, started from
the pool (and the snapshot) of the day before; `derm plan` shows it, `derm backfill` executes it.
"""

import argparse
from collections.abc import Iterable

from feature_store.contracts.artifacts import Daily, Raw, Snapshot, reference
from feature_store.contracts.base import (
    Upstream,
    days_between,
    shift_day,
)
from feature_store.contracts.datasets import WINDOWS
from feature_store.contracts.errors import InputError, MissingInput
from feature_store.lake.lake import Lake
from jobs.console import day, out
from jobs.engine.manifests import ManifestStore
from jobs.engine.unfinished import BackfillPlan, What
from jobs.pipelines.declarations import Step
from jobs.repair.plan_builder import PlanBuilder
from jobs.repair.starting_points import Survey, survey
from jobs.settings import Home, Settings

_BEFORE_THE_SPACE = "what the present space began with is made anew by derm bootstrap"
CORRUPTIONS: tuple[What, ...] = ("labels", "features", "embeddings")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm plan`, which `derm backfill` shares."""
    parser.add_argument("--from", dest="first", required=True, type=day, help="first wrong day")
    parser.add_argument("--to", dest="last", required=True, type=day, help="last, included")
    parser.add_argument("--what", choices=CORRUPTIONS, default="labels", help="what was wrong")
    parser.add_argument(
        "--retrain",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let the models learn the repaired days (default: unless only embeddings were wrong)",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Show what a backfill would do."""
    plan = from_arguments(args, settings)
    out(plan.model_dump_json() if args.json else render(plan))
    return 0


def from_arguments(args: argparse.Namespace, settings: Settings) -> BackfillPlan:
    """The plan for the days and the corruption that were named."""
    home = Home.load(settings.home)
    lake, manifests = Lake(settings.lake_root), ManifestStore(settings.paths.manifests)
    return plan_repair(
        survey(home, lake, manifests), days_of(args), args.what, retrain=args.retrain
    )


def days_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The days from --from to --to."""
    return days_between(args.first, args.last)


def render(plan: BackfillPlan) -> str:
    """A plan for people: a line per day, and what readers see meanwhile."""
    lines = [
        f"begin a new space: train on the days up to {plan.last}, embed {plan.first} to {plan.last}"
        if plan.what == "space"
        else f"repair {plan.what} of {' '.join(plan.corrupted)}",
        f"start from the state of {plan.base}" if plan.base else "start from nothing",
    ]
    for ds in sorted({s.ds for s in plan.steps}):
        steps = [s for s in plan.steps if s.ds == ds]
        names = " ".join(dict.fromkeys(s.step for s in steps if not s.keep))
        rows, seconds = sum(s.rows for s in steps), sum(s.seconds for s in steps)
        tables = sum(bool(reference(n).table) for s in steps for n in s.writes)
        lines.append(f"  {ds}  {names}")
        lines.append(f"{'':14}{tables} partitions, {rows:,} rows, about {seconds:.0f} s")
    lines.append(
        f"{len(plan.steps)} steps, about {plan.seconds:.0f} s, each partition overwritten in place"
    )
    if plan.what == "embeddings":
        lines.append("believed as they are: events, features, counts, models (--what features)")
    lines.append("readers see the present release until the release step, then all of it at once")
    return "\n".join(lines)


def plan_repair(
    survey: Survey, corrupted: Iterable[str], what: What, *, retrain: bool | None = None
) -> BackfillPlan:
    """Plan the repair of some days.

    Args:
        corrupted: the days, in any order.
        retrain: whether the models learn the repaired days; by default they do, unless only the
            embeddings were wrong.

    Raises:
        InputError: there is nothing to repair.
        MissingInput: no good state is left to start from; it names the oldest day that works.
    """
    days = tuple(sorted(set(corrupted)))
    if not days or days[0] < survey.start or days[-1] > survey.last:
        raise InputError(
            "these days cannot be repaired",
            expected=f"days from {survey.start} to {survey.last}",
            found=" ".join(days) or "none",
            hint=_BEFORE_THE_SPACE if survey.start > survey.origin else "",
        )
    learn = what != "embeddings" if retrain is None else retrain
    first = _first_day(survey, days, retrain=learn, recount=what != "embeddings")
    planner = _Planner(survey, days, what, learn)
    for ds in days_between(first, survey.last):
        planner.plan_day(ds)
    return BackfillPlan(
        corrupted=days,
        what=what,
        retrain=learn,
        base=None if first == survey.origin else shift_day(first, -1),
        first=first,
        last=survey.last,
        steps=tuple(planner.plan.steps),
    )


def _first_day(survey: Survey, corrupted: tuple[str, ...], *, retrain: bool, recount: bool) -> str:
    """The latest day, not after the first wrong one, from which all later days can be recomputed.

    Raises:
        MissingInput: there is none; it names the oldest day that can be repaired.
    """
    wanted = corrupted[0]
    startable = [
        ds
        for ds in days_between(survey.start, survey.last)
        # A day after the wrong ones is tried as the one that is to be repaired.
        if _has_state(
            survey,
            ds,
            corrupted if ds <= wanted else (ds,),
            retrain=retrain,
            recount=recount,
        )
    ]
    if usable := [ds for ds in startable if ds <= wanted]:
        return usable[-1]
    raise MissingInput(
        f"nothing is left to repair {wanted} from",
        where="pools"
        + (", counts" if recount else "")
        + (" and snapshots" if retrain else ", dailies, raws and snapshots"),
        expected=f"the state of {shift_day(wanted, -1)} or of an earlier day, and what was "
        "inferred on the days since",
        found="it was removed by retention",
        hint=f"the oldest day that can be repaired is {startable[0]}"
        if startable
        else "no day can be repaired: derm bootstrap begins anew",
    )


def _has_state(
    survey: Survey, ds: str, corrupted: tuple[str, ...], *, retrain: bool, recount: bool
) -> bool:
    """Whether the recomputation can start on `ds`: its yesterday, and what every day from it needs.

    Args:
        corrupted: the wrong days, none before `ds`.
        recount: their events were wrong, so later days have other counts, and other features.
    """
    learns_from = corrupted[0]
    # Training continues from the snapshot of the day before the first wrong day.
    parent = shift_day(learns_from, -1)

    def embeddable(upstream: Upstream, day: str) -> bool:
        if retrain and day >= learns_from:
            return True
        if day in corrupted or _fed_anew(survey, upstream, day, corrupted, recount=recount):
            return day in survey.snapshots[upstream]
        return _replayable(survey, upstream, day)

    windows = max(survey.first_ds, shift_day(learns_from, -WINDOWS[-1]))
    countable = not recount or (
        set(days_between(windows, parent)) <= set(survey.counted)
        and (survey.graphs is None or learns_from == survey.first_ds or parent in survey.graphs)
    )
    return countable and all(
        (ds == survey.origin or shift_day(ds, -1) in survey.pools[u])
        and (not retrain or parent < survey.origin or parent in survey.snapshots[u])
        and all(embeddable(u, d) for d in days_between(ds, survey.last))
        for u in survey.pipeline.names
    )


def _fed_anew(
    survey: Survey, upstream: Upstream, ds: str, corrupted: tuple[str, ...], *, recount: bool
) -> bool:
    """Whether a day's features change with the repair.

    Counts change with the events of earlier days, pools that are read with their embeddings.
    """
    reads_pools = bool(survey.pipeline.upstream(upstream).pools)
    return (recount and ds >= corrupted[0]) or (reads_pools and ds > corrupted[0])


def _replayable(survey: Survey, upstream: Upstream, ds: str) -> bool:
    days = (survey.dailies[upstream], survey.raws[upstream], survey.snapshots[upstream])
    return any(ds in d for d in days)


class _Planner:
    """Plans a repair, a day at a time."""

    def __init__(
        self, survey: Survey, corrupted: tuple[str, ...], what: What, retrain: bool
    ) -> None:
        self.plan = PlanBuilder(survey.pipeline, survey.records)
        self._survey, self._corrupted, self._retrain = survey, corrupted, retrain
        self._recount = what != "embeddings"

    def plan_day(self, ds: str) -> None:
        """Plan one day: its sources once, then each upstream, then what readers see."""
        if ds in self._corrupted and self._recount:
            self.plan.add_stages(ds, "source")
        if self._recount and ds >= self._corrupted[0]:
            self.plan.add_stages(ds, "graph")
        for step, upstream in self.plan.pipeline.in_order("model", "embeddings"):
            if upstream:
                self._plan_step(step, ds, upstream)
            else:
                self.plan.add(step, ds, None)
        if self._recount and ds >= self._corrupted[0]:
            self.plan.add_stages(ds, "counts")
        if ds == self._survey.last:
            self.plan.add_stages(ds, "publishing", "report")

    def _plan_step(self, step: Step, ds: str, upstream: Upstream) -> None:
        """Plan a step of an upstream: what its result is made from decides whether it stands."""
        trained = self._retrain and ds >= self._corrupted[0]
        fed_anew = _fed_anew(self._survey, upstream, ds, self._corrupted, recount=self._recount)
        has_raw = ds in self._survey.raws[upstream]
        has_daily = ds in self._survey.dailies[upstream]
        inferred = ds in self._corrupted or trained or fed_anew or not (has_raw or has_daily)
        makes = {type(what) for what in step.outputs}
        if Snapshot in makes:
            wanted = trained or fed_anew
        elif Raw in makes:
            wanted = inferred
        else:
            wanted = Daily not in makes or inferred or not has_daily
        if wanted:
            self.plan.add(step, ds, upstream, keep=Snapshot in makes and not trained)
