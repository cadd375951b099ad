"""Run a pipeline for weeks with kills, forget people and Pins, and look for them everywhere.

    python -m tests.chaos.forgotten --days 30 --seed 1 --ids 20 --json OUT

Every day of a shop of 240 members (tests/chaos/little.py) is a `derm run` that is killed with
SIGKILL at random moments (now and then the embedded Redis instead) and given again until it
succeeds; so are, every week, a `derm backfill` of a day that is taken for wrong and `derm retain`.
Then `derm forget` removes users and Pins, killed once itself. What is left of them is counted by
the scanner of `jobs.upkeep.scanner`, which knows nothing of the layout and here looks inside words
too, over every file below the home and every key of the store.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from feature_store.contracts.base import ENTITIES, Entity, days_between, shift_day
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from jobs.services.redis import ensure_redis
from jobs.settings import Settings
from jobs.upkeep.scanner import Wanted, scan
from tests.chaos import little
from tests.chaos.process import Copy, in_copy, must, prepare, start
from tests.chaos.stage import Stage

_SIZE = little.Size(members=240, offers=120, rows=900)
_WEEK = 7
_PATIENCE = 20


def main(arguments: list[str]) -> int:
    """Play it; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ids", type=int, default=20, help="of each entity type")
    parser.add_argument("--kills", type=float, default=1.0, help="per command, on average")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    prepare()
    stage = Stage(args.folder or Path(tempfile.mkdtemp(prefix="derm-forgotten-")))
    rng, last = random.Random(args.seed), shift_day(little.HISTORY, args.days)
    declaration = little.deliver(stage.folder / "shop", days_between(little.HISTORY, last), _SIZE)
    recipe = f"{Path(little.__file__)}:recipe"
    must(stage.home, "init", "--dataset", str(declaration), "--recipe", recipe)
    must(stage.home, "run", "--from", little.HISTORY, "--to", little.HISTORY)
    try:
        days = days_between(shift_day(little.HISTORY, 1), last)
        kills = sum(_operated(stage, ds, n, rng, args.kills) for n, ds in enumerate(days, 1))
        found = {e: _forget(stage, e, args.ids, rng) for e in ENTITIES}
    finally:
        stage.kill_store()
    result = {"days": args.days, "seed": args.seed, "kills": kills, "entities": found}
    _say(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(f["files_after"] or f["keys_after"] for f in found.values()))


def _operated(stage: Stage, ds: str, number: int, rng: random.Random, kills: float) -> int:
    """A day, and once a week what is done beside it; how often something was killed."""
    struck = _until_done(stage, rng, kills, "run", "--from", ds, "--to", ds)
    if number % _WEEK == 0:
        wrong = ("--from", shift_day(ds, -1), "--to", shift_day(ds, -1))
        struck += _until_done(stage, rng, kills, "backfill", *wrong, "--yes")
        struck += _until_done(stage, rng, kills, "retain")
    _say(f"{ds}: done after {struck} kills")
    return struck


def _until_done(stage: Stage, rng: random.Random, kills: float, *command: str) -> int:
    """Give a command until it succeeds; how often something was killed.

    Raises:
        RuntimeError: it fails again and again, and nobody strikes it.
    """
    struck = 0
    for _ in range(_PATIENCE):
        copy = start(stage.home, *command)
        if rng.random() < kills / (1 + struck):
            struck += _strike(stage, copy, rng)
        if copy.wait() == 0:
            return struck
        if copy.code != -signal.SIGKILL:
            _say(f"{' '.join(command)}: exit code {copy.code}: {copy.said()[-400:]}")
            # What a person does whose store was killed: the message says so.
            start(stage.home, "restore").wait()
    raise RuntimeError(f"{' '.join(command)} does not succeed:\n{copy.said()}")


def _strike(stage: Stage, copy: Copy, rng: random.Random) -> int:
    until = time.monotonic() + rng.uniform(0.05, 3)
    while time.monotonic() < until and not copy.ended():
        time.sleep(0.01)
    if rng.random() < 0.25 and (pid := stage.store_pid()) and not copy.ended():
        os.kill(pid, signal.SIGKILL)
        return 1
    return int(copy.kill())


def _forget(stage: Stage, entity: Entity, count: int, rng: random.Random) -> dict[str, Any]:
    """Forget some of the newest pool, killed once; what is found before and after."""
    known = in_copy(lambda: _known(stage.home, entity))
    gone = sorted(rng.sample(known, count))
    listed = stage.folder / f"{entity}.txt"
    listed.write_text("\n".join(gone) + "\n")
    before = in_copy(lambda: _traces(stage.home, gone))
    arguments = ("forget", "--entity", entity, "--file", str(listed), "--json")
    first = start(stage.home, *arguments)
    time.sleep(rng.uniform(0.2, 2))
    killed = first.kill()
    begun, second = time.monotonic(), start(stage.home, *arguments)
    code = second.wait()
    said = json.loads(second.said().splitlines()[-1])
    after = in_copy(lambda: _traces(stage.home, gone))
    return {
        "ids": count,
        "killed_once": killed,
        "exit_code": code,
        "files_before": before["files"],
        "keys_before": before["keys"],
        "files_after": after["files"],
        "keys_after": after["keys"],
        "unknown": len(said["unknown"]),
        "left": said["left"],
        "unproved": said["unproved"],
        "files_read": after["read"],
        "megabytes_read": after["megabytes"],
        "seconds": round(time.monotonic() - begun, 1),
    }


def _known(home: Path, entity: Entity) -> list[str]:
    lake, table = Lake(home / "lake"), pool_table("ctr", entity)
    newest = lake.read(table, lake.days(table.name)[-1], columns=["entity_id"])
    return list(newest["entity_id"].to_pylist())


def _traces(home: Path, gone: list[str]) -> dict[str, int]:
    """Files that hold an id (inside words, too), and keys of the store that do."""
    files = sorted(f for f in home.rglob("*") if f.is_file())
    # No member's id is part of another's: all of them have the same length.
    found = {t.file for t in scan(files, Wanted(gone, anywhere=True))}
    with redis.Redis.from_url(ensure_redis(Settings(home=home))) as client:
        keys = [k.decode() for k in client.scan_iter(count=1000)]
    return {
        "files": len(found),
        "keys": sum(any(i in key for i in gone) for key in keys),
        "read": len(files),
        "megabytes": round(sum(f.stat().st_size for f in files if f.exists()) / 1e6),
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
