"""`derm status`: what is published now, how each day stands, and what to run next."""

import argparse
import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from feature_store.contracts.base import days_between
from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.rankers import Ranker
from feature_store.lake.lake import Lake
from feature_store.lake.late import QUARANTINE
from jobs.console import out
from jobs.engine import attempts, unfinished
from jobs.engine.attempts import Attempt
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.engine.staleness import Standing, standings
from jobs.rendering.day_status import DayStatus, RankedDay, RankerStatus, Status, as_seen
from jobs.rendering.published import read_published
from jobs.rendering.summary import DaySummary
from jobs.rendering.terminal import print_status
from jobs.services import redis
from jobs.settings import Settings
from jobs.steps import probing

_DAYS = 7


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm status`."""
    parser.add_argument(
        "--days", type=_positive, default=_DAYS, help=f"how many days; default: {_DAYS}"
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Show the state of the home."""
    show(settings, args.days, as_json=args.json)
    return 0


def show(settings: Settings, days: int = _DAYS, *, as_json: bool = False) -> None:
    """Show the state of the home's newest days."""
    status = read_status(settings, days=days, now=dt.datetime.now(dt.UTC))
    if as_json:
        out(json.dumps(_as_json(status), indent=2))
    else:
        print_status(status)


def read_status(settings: Settings, *, days: int, now: dt.datetime) -> Status:
    """The state of the home's newest days.

    Raises:
        InputError: the home was never initialised.
        ManifestCorrupt: the record of a repair cannot be read.
    """
    ctx = open_context(settings, "")
    published, problem = None, ""
    try:
        published = read_published(ctx.root)
    except ManifestCorrupt as error:
        problem = str(error)
    # A day before the first published one only feeds the first training.
    tried = attempts.attempts(ctx.root)
    # A day whose first step failed has no manifest yet.
    every = sorted({*ctx.manifests.days(), *(a.ds for a in tried)})
    known = [ds for ds in every if ds >= ctx.home.start_ds][-days:]
    found = list(standings(ctx, known))
    ranked = list(standings(ctx, known, ctx.pipeline.ranking))
    seen = published.release.ds if published else ""
    shown = tuple(_day(ctx, ds, [s for s in found if s.ds == ds], tried, seen=seen) for ds in known)
    return Status(
        published=published,
        problem=problem,
        repair=unfinished.load(ctx.root),
        days=shown,
        findings=probing.look(ctx, now).findings,
        quarantined=_quarantined(ctx.lake),
        now=now,
        store=redis.describe(settings),
        rankers=tuple(
            _ranker(ctx, r.name, [s for s in ranked if s.upstream == r.name], tried, shown)
            for r in ctx.pipeline.rankers
        ),
    )


def _day(
    ctx: RunContext, ds: str, found: Sequence[Standing], tried: Sequence[Attempt], *, seen: str
) -> DayStatus:
    newest = ctx.spaces.trained[-1] if ctx.spaces.trained else ""
    back = len(days_between(ctx.spaces.pooled[-1], newest)) - 1 if newest else 0
    superseded = bool(seen) and ds < seen
    return DayStatus(
        summary=DaySummary.of(ds, [s.manifest for s in found if s.manifest]),
        standings=tuple(as_seen(s, superseded=superseded) for s in found),
        superseded=superseded,
        bootstrap=f"derm bootstrap --ds {ds} --back {back}" if ds == newest else "",
        closed=ds < newest,
        attempts=tuple(a for a in tried if a.ds == ds and not ctx.pipeline.is_ranker(a.upstream)),
    )


def _ranker(
    ctx: RunContext,
    name: Ranker,
    found: Sequence[Standing],
    tried: Sequence[Attempt],
    days: Sequence[DayStatus],
) -> RankerStatus:
    """A ranker over the days that are shown: it is owed those that were released."""
    released = [d.summary.ds for d in days if d.summary.released]
    begun = [s.ds for s in found if s.manifest]
    pointer = ctx.paths.ranker_pointer(name)
    return RankerStatus(
        ranker=name,
        export=pointer.read_text().strip() if pointer.exists() else "",
        newest=released[-1] if released else "",
        days=tuple(
            _ranked_day(ds, [s for s in found if s.ds == ds], name, tried)
            for ds in released
            if begun and ds >= begun[0]
        ),
    )


def _ranked_day(
    ds: str, found: Sequence[Standing], name: Ranker, tried: Sequence[Attempt]
) -> RankedDay:
    return RankedDay(
        summary=DaySummary.of(ds, [s.manifest for s in found if s.manifest]),
        standings=tuple(found),
        attempts=tuple(a for a in tried if (a.ds, a.upstream) == (ds, name)),
    )


def _quarantined(lake: Lake) -> int:
    return lake.open(QUARANTINE).count() if lake.exists(QUARANTINE) else 0


def _as_json(status: Status) -> dict[str, Any]:
    return {
        "repair": _repair_json(status),
        "published": _published_json(status),
        "problem": status.problem,
        "findings": [f.model_dump() for f in status.findings],
        "store": status.store,
        "quarantined_rows": status.quarantined,
        "days": [_day_json(day) for day in status.days],
        "rankers": [_ranker_json(ranker) for ranker in status.rankers],
    }


def _ranker_json(status: RankerStatus) -> dict[str, Any]:
    return {
        "ranker": status.ranker,
        "export": status.export,
        "command": status.command,
        "days": [
            {
                "ds": day.summary.ds,
                "complete": not day.open_steps,
                "attempts": [{**a.model_dump(), "state": a.state} for a in day.attempts],
                "steps": [
                    {"step": s.step.name, "state": s.state, "reason": s.reason}
                    for s in day.standings
                ],
                "metrics": {step: m.metrics for (step, _), m in day.summary.steps.items()},
            }
            for day in status.days
        ],
    }


def _repair_json(status: Status) -> dict[str, Any] | None:
    if status.repair is None:
        return None
    made = status.repair.plan
    return {
        "command": unfinished.command(made),
        "done": status.repair.done,
        "steps": len(made.steps),
        "first": made.first,
        "last": made.last,
    }


def _published_json(status: Status) -> dict[str, Any] | None:
    if status.published is None:
        return None
    return {
        **status.published.release.model_dump(),
        "released_at": status.published.released_at.isoformat(),
        "age_hours": round(status.published.age_hours(status.now), 2),
    }


def _day_json(day: DayStatus) -> dict[str, Any]:
    first = day.open_steps[0] if day.open_steps else None
    return {
        "ds": day.summary.ds,
        "complete": first is None,
        "released": day.summary.released is not None,
        "first_open": {"step": first.step.name, "upstream": first.upstream} if first else None,
        "command": day.command,
        "notes": list(day.summary.notes),
        "attempts": [{**a.model_dump(), "state": a.state} for a in day.attempts],
        "steps": [
            {"step": s.step.name, "upstream": s.upstream, "state": s.state} for s in day.standings
        ],
        "metrics": {
            u: {
                step: manifest.metrics
                for (step, of), manifest in day.summary.steps.items()
                if of == u and manifest.metrics
            }
            for u in day.upstreams
        },
    }


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of days, at least 1, found {text!r}")
    return int(text)
