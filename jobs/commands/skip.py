"""`derm skip`: go past a day whose events will never come.

The day is published all the same: nobody was seen on it, everybody is carried over, pruning counts
it. A data set on which such days are normal declares `empty_days = "carry"` instead.
"""

import argparse
import datetime as dt
import json

from feature_store.contracts.errors import InputError
from jobs.console import day, out
from jobs.engine import locks, skips
from jobs.engine.manifests import ManifestStore
from jobs.settings import Home, Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm skip`."""
    parser.add_argument("--ds", required=True, type=day, help="the day without events")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--reason", help="why there are none; kept with the day")
    what.add_argument("--undo", action="store_true", help="the events came after all")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Record the skip, or take it back, and say what to run.

    Raises:
        InputError: the day is before the data, is at work on events already, or was not skipped.
    """
    Home.load(settings.home)
    with locks.alone(settings.home, "derm skip"):
        if args.undo:
            command = _undo(settings, args.ds)
        else:
            command = _skip(settings, args.ds, args.reason, dt.datetime.now(dt.UTC))
    if args.json:
        skip = skips.load(settings.home, args.ds)
        out(json.dumps({"skipped": skip.model_dump() if skip else None, "next": command}))
        return 0
    out(f"{args.ds}: {'has events again' if args.undo else 'is skipped'}")
    out(f"next: {command}")
    return 0


def _skip(settings: Settings, ds: str, reason: str, now: dt.datetime) -> str:
    home, manifests = Home.load(settings.home), ManifestStore(settings.paths.manifests)
    if not reason.strip():
        raise InputError("a reason is needed", expected='--reason "why there are no events"')
    if ds < home.first_ds:
        raise InputError(
            f"{ds} is before the data", expected=f"a day from {home.first_ds} on", found=ds
        )
    ingested = manifests.get("ingest", ds, None)
    rows = ingested.metrics.get("events") if ingested else 0
    if rows and manifests.get("validate", ds, None):
        raise InputError(
            f"{ds} has events, and they passed validation",
            where=str(manifests.path("ingest", ds, None)),
            expected="a day that has not come, or that validation refused",
            found=f"{rows} events",
            hint=f"repair its source instead: derm backfill --from {ds} --to {ds} --what features",
        )
    at = now.isoformat(timespec="seconds")
    skips.save(settings.home, skips.Skip(ds=ds, reason=reason.strip(), at=at))
    return f"derm run --from {ds} --to {ds}"


def _undo(settings: Settings, ds: str) -> str:
    """Take the record back; the command that brings the events in."""
    manifests = ManifestStore(settings.paths.manifests)
    if not settings.paths.skipped(ds).exists():
        raise InputError(f"{ds} was not skipped", expected="a day that derm status shows as such")
    skips.remove(settings.home, ds)
    if manifests.get("release", ds, None):
        return f"derm backfill --from {ds} --to {ds} --what features"
    return f"derm run --from {ds} --to {ds}"
