"""`derm verify`: the step `verify` of one day, or, without a day, everything that a home holds.

Without a day every file is read: manifests, the lake, snapshots, rankers and their exports, Pin
indexes, releases, and the simulated world's source. What is not what was written is named, each
with the command that makes it again. Nothing is changed. Exit code 1 where something was found.
"""

import argparse
import json
import time
from collections.abc import Iterator

from jobs.console import out
from jobs.engine import locks, step_command
from jobs.engine.runner import open_context
from jobs.settings import Settings
from jobs.upkeep import integrity


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing beside the day: without one, everything is read."""


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Verify the pool of a day, or read everything.

    Raises:
        DermError: the pool of the day is not fit to be published.
    """
    if args.ds:
        return step_command.main(args, settings)
    ctx = open_context(settings, "")
    # Steps may go on beside it; whoever rewrites days behind them may not.
    with locks.reading(settings.home):
        clock, look = time.perf_counter(), integrity.Look(ctx)
        found = list(look.everything())
    seconds = time.perf_counter() - clock
    if args.json:
        summary = {"files": look.files, "bytes": look.bytes, "seconds": round(seconds, 3)}
        out(json.dumps(summary | {"damaged": [d.model_dump() for d in found]}, indent=2))
        return 1 if found else 0
    for line in _lines(found):
        out(line)
    out(
        f"{look.files:,} files, {look.bytes / 1e6:,.1f} MB read in {seconds:.1f} s: "
        + (f"{len(found)} are not what was written" if found else "all are what was written")
    )
    return 1 if found else 0


def _lines(found: list[integrity.Damage]) -> Iterator[str]:
    for damage in found:
        yield damage.where
        yield f"  {'found:':10}{damage.found}"
        yield f"  {'repair:':10}{damage.repair}"
