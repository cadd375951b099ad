"""`derm accept`: let a day pass a guard that refused it, after somebody has looked.

For one day and one guard, and for the number that was refused: one that lies further from its
bound is refused again. The acceptance goes into the manifest of the step, into status and report.
"""

import argparse
import datetime as dt
import json

from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Acceptance
from jobs.console import day, out
from jobs.engine import attempts, guards
from jobs.engine.runner import open_context
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm accept`."""
    parser.add_argument("--ds", required=True, type=day, help="the day that was refused")
    parser.add_argument(
        "--guard", required=True, metavar="NAME", help="the guard, as the refusal names it"
    )
    parser.add_argument("--reason", required=True, help="why the day is right; kept with it")
    parser.add_argument("--upstream", metavar="NAME", help="one model; default: all it refused")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Record the acceptance and say what to run.

    Raises:
        InputError: no guard has that name, it refused nothing of the day, or no reason is given.
    """
    granted = granted_by(args, settings, dt.datetime.now(dt.UTC))
    guards.accept(settings.home, granted)
    command = f"derm run --from {args.ds} --to {args.ds}"
    if args.json:
        out(json.dumps({"accepted": [a.model_dump() for a in granted], "next": command}))
        return 0
    for a in granted:
        name = f"{a.guard} {a.upstream}" if a.upstream else a.guard
        out(f"{a.ds}: {name} {a.found:.4g} may pass its bound {a.bound:.4g}: {a.reason}")
    out(f"next: {command}")
    return 0


def granted_by(
    args: argparse.Namespace, settings: Settings, now: dt.datetime
) -> tuple[Acceptance, ...]:
    """What the arguments accept of what was refused.

    Raises:
        InputError: no guard has that name, it refused nothing of the day, or no reason is given.
    """
    known = guards.names(open_context(settings, args.ds).spec)
    if args.guard not in known:
        raise InputError("unknown guard", expected=" | ".join(known), found=args.guard)
    if not args.reason.strip():
        raise InputError("a reason is needed", expected='--reason "why the day is right"')
    refused = [
        (attempt, number)
        for attempt in attempts.of_day(settings.home, args.ds)
        for number in attempt.broken
        if args.upstream in (None, attempt.upstream)
    ]
    granted = tuple(
        Acceptance(
            ds=args.ds,
            guard=number.guard,
            upstream=attempt.upstream or None,
            found=number.found,
            bound=number.bound,
            least=number.least,
            reason=args.reason.strip(),
            at=now.isoformat(timespec="seconds"),
        )
        for attempt, number in refused
        if number.guard == args.guard
    )
    if not granted:
        raise InputError(
            f"{args.guard} refused nothing of {args.ds} that could be accepted",
            expected="a step of the day that this guard refused when it ran last",
            found=" ".join(sorted({n.guard for _, n in refused})) or "no refused number",
            hint=f"derm status; run the day first: derm run --from {args.ds} --to {args.ds}",
        )
    return granted
