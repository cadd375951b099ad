"""Run every day of a real log, and compare each pool with NumPy's recursion, bit for bit.

    python -m tests.chaos.real_days --dataset movielens --source DIR --first 1997-09-20 \\
        --last 1998-04-22 --folder /tmp/real --minutes 15

Days run as `derm run` runs them, without Airflow, one after the other in this process. After each
one the pools of users and Pins are compared with those that `tests/reference_pool.py` makes of the
day's raw embeddings, an entity at a time. Killed, or out of minutes, the same command goes on: days
that were released are not run again, but their pools are compared again. A guard that refuses a
day is accepted, with a reason, and the day's line names it. Lines are kept in `days.jsonl`.
"""

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feature_store.contracts.base import days_between
from feature_store.contracts.tables import pool_table, raw_table
from jobs import cli
from jobs.console import out
from jobs.engine import attempts
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.services import local
from jobs.settings import Home, Settings
from tests import reference_pool
from tests.reference_pool import State

_HISTORY = "ingest,validate,count"
Pools = dict[tuple[str, str], dict[str, State]]


def main(arguments: list[str]) -> int:
    """Play the days; 0 when every pool of every day is the recursion's."""
    args = _parser().parse_args(arguments)
    home, written = args.folder / "home", args.folder / "days.jsonl"
    os.environ.update(DERM_HOME=str(home), DERM_THREADS="1")
    logging.disable(logging.INFO)
    if not home.exists():
        source = ("--source", str(args.source)) if args.source else ()
        history = ("--first", args.first, "--days", "1")
        _must(home, "init", "--dataset", args.dataset, *source, *history)
        _must(home, "run", "--from", args.first, "--to", args.first, "--steps", _HISTORY)
    lines = {d["ds"]: d for d in map(json.loads, _read(written))}
    settings, pools = Settings.from_environment(), Pools()
    start, until = Home.load(home).start_ds, time.monotonic() + 60 * args.minutes
    try:
        for ds in days_between(start, args.last):
            if ds not in lines and time.monotonic() > until:
                break
            line = _day(settings, ds, pools, lines.get(ds))
            if ds not in lines:
                lines[ds] = line
                with written.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                out(_said(line))
            elif line["differing"]:
                lines[ds] = line
                out(f"{ds}: its pools were the recursion's and are not any more")
    finally:
        local.stop(settings)
    return _summary(lines, days_between(start, args.last))


def _day(
    settings: Settings, ds: str, pools: Pools, before: dict[str, Any] | None
) -> dict[str, Any]:
    """Run a day unless it is there; move the recursion on by it, and compare."""
    started = time.monotonic()
    accepted = [] if before else list(_run(settings, ds))
    seconds, ctx = time.monotonic() - started, open_context(settings, ds)
    rows = {
        f"{upstream.name} {entity}": _compare(ctx, pools, upstream.name, entity)
        for upstream in ctx.pipeline.upstreams
        for entity in upstream.entities
    }
    held = before or {"seconds": round(seconds, 1), "accepted": accepted}
    return {
        "ds": ds,
        "events": ctx.lake.read(ctx.spec.events_table(), ds, columns=["event_id"]).num_rows,
        "pools": {name: len(found) for name, (found, _) in rows.items()},
        "differing": [name for name, (found, expected) in rows.items() if found != expected],
        "seconds": held["seconds"],
        "accepted": held["accepted"],
    }


def _run(settings: Settings, ds: str) -> Iterator[str]:
    """Run a day; the guards that were accepted for it to pass."""
    while _derm(settings.home, "run", "--from", ds, "--to", ds):
        refused = [a for a in attempts.of_day(settings.home, ds) if a.refused]
        guards = sorted({number.guard for a in refused for number in a.broken})
        if not guards:
            raise SystemExit(f"{ds} ended badly: {[a.reason for a in refused]}")
        for guard in guards:
            reason = ("--reason", "a day of the real log")
            _must(settings.home, "accept", "--ds", ds, "--guard", guard, *reason)
        yield from guards


def _compare(
    ctx: RunContext, pools: Pools, upstream: str, entity: Any
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The rows of a pool in the lake, and those of the recursion, moved on by the day."""
    config = ctx.recipe.of(ctx.pipeline.upstream(upstream)).aggregation
    columns = ["entity_id", "ts", "event_id", "embedding"]
    raw = ctx.lake.read(raw_table(upstream, entity), ctx.ds, columns=columns)
    seen = reference_pool.last_of_day(raw)
    pool = reference_pool.step(pools.get((upstream, entity), {}), seen, ctx.ds, config)
    pools[upstream, entity] = pool
    found = reference_pool.table_rows(ctx.lake.read(pool_table(upstream, entity), ctx.ds))
    return sorted(found, key=lambda row: str(row[0])), reference_pool.as_rows(pool, config)


def _said(line: dict[str, Any]) -> str:
    same = "other than the recursion: " + " ".join(line["differing"])
    pools = " ".join(f"{name} {rows}" for name, rows in line["pools"].items())
    accepted = f"; accepted {' '.join(line['accepted'])}" if line["accepted"] else ""
    return (
        f"{line['ds']}: {line['events']} events; {pools}; "
        f"{same if line['differing'] else 'equal'}; {line['seconds']} s{accepted}"
    )


def _summary(lines: dict[str, dict[str, Any]], days: tuple[str, ...]) -> int:
    played = [lines[ds] for ds in days if ds in lines]
    wrong = [line["ds"] for line in played if line["differing"]]
    rows = sum(sum(line["pools"].values()) for line in played)
    out(
        f"{len(played)} of {len(days)} days played, {len(played) - len(wrong)} equal to the last "
        f"bit ({rows:,} rows of {len(played) and len(played[0]['pools'])} pools); "
        f"{sum(not line['events'] for line in played)} days without events, "
        f"{sum(bool(line['accepted']) for line in played)} accepted past a guard; "
        f"{sum(line['seconds'] for line in played):,.0f} s of derm run"
    )
    if wrong:
        out(f"different: {' '.join(wrong)}")
    return int(bool(wrong) or len(played) < len(days))


def _must(home: Path, *arguments: str) -> None:
    if code := _derm(home, *arguments):
        raise SystemExit(f"derm {' '.join(arguments)}: exit code {code}")


def _derm(home: Path, *arguments: str) -> int:
    """Run a command in this process; what it prints goes to a log beside the home."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "derm.log").open("a") as log, contextlib.redirect_stdout(log):
        return cli.main(arguments)


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="movielens")
    parser.add_argument("--source", type=Path, help="folder of the data's files")
    parser.add_argument("--first", required=True, help="the day of history before the first one")
    parser.add_argument("--last", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="of the home and the lines")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no day after so many")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
