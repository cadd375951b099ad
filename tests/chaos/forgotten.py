"""Run a pipeline for weeks with kills, forget people and Pins, and look for them everywhere.

    python -m tests.chaos.forgotten --days 30 --seed 1 --ids 20 --json OUT

Every day is a `derm run` that is killed with SIGKILL at random moments (now and then the embedded
Redis instead) and given again until it succeeds. Then `derm forget` removes users and Pins, killed
once itself. What is left of them is counted by the scanner of `jobs.upkeep.scanner`, which knows
nothing of the layout, over every file below the home and every key of the store.
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

import redis

from feature_store.contracts.base import shift_day
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings
from jobs.upkeep.scanner import Wanted, scan
from tests.derm_process import derm, start

HISTORY = "2025-03-01"


def main(arguments: list[str]) -> int:
    """Play it; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ids", type=int, default=20, help="of each entity type")
    parser.add_argument("--kills", type=float, default=1.0, help="per day, on average")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    rng, home = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="derm-forgotten-")) / "home"
    derm(home, "init", "--dataset", "simulated", "--days", "1")
    steps = "simulate,ingest,validate,count"
    derm(home, "run", "--from", HISTORY, "--to", HISTORY, "--steps", steps)
    kills = sum(_day(home, shift_day(HISTORY, d + 1), rng, args.kills) for d in range(args.days))
    try:
        found = {e: _forget(home, e, args.ids, rng) for e in ("user", "pin")}
    finally:
        stop_redis(home)
    result = {"days": args.days, "seed": args.seed, "kills": kills, "entities": found}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(f["files_after"] or f["keys_after"] for f in found.values()))


def _day(home: Path, ds: str, rng: random.Random, kills: float) -> int:
    """Run a day until it succeeds; how often something was killed."""
    struck = 0
    while True:
        process = start(home, "run", "--from", ds, "--to", ds)
        if rng.random() < kills / (1 + struck):
            try:
                process.wait(timeout=rng.uniform(1, 25))
            except BaseException:
                struck += 1
                _strike(home, process.pid, rng)
        said = process.communicate()[1]
        if process.returncode == 0:
            sys.stdout.write(f"{ds}: done after {struck} kills\n")
            sys.stdout.flush()
            return struck
        if process.returncode != -signal.SIGKILL:
            sys.stdout.write(f"{ds}: exit code {process.returncode}: {said[-400:]}\n")


def _strike(home: Path, pid: int, rng: random.Random) -> None:
    record = home / "services" / "redis" / "server.json"
    victim = pid
    if rng.random() < 0.25 and record.exists():
        victim = json.loads(record.read_text()).get("pid") or pid
    os.kill(victim, signal.SIGKILL)


def _forget(home: Path, entity: str, count: int, rng: random.Random) -> dict[str, object]:
    """Forget some of the newest pool, killed once; what is found before and after."""
    lake, name = Lake(home / "lake"), pool_table("ctr", entity).name
    known = lake.read(pool_table("ctr", entity), lake.days(name)[-1], columns=["entity_id"])
    gone = sorted(rng.sample(known["entity_id"].to_pylist(), count))
    listed = home.parent / f"{entity}.txt"
    listed.write_text("\n".join(gone) + "\n")
    before = _traces(home, gone)
    arguments = ("forget", "--entity", entity, "--file", str(listed), "--json")
    process = start(home, *arguments)
    time.sleep(rng.uniform(2, 6))
    process.kill()
    process.communicate()
    begun = time.monotonic()
    said = json.loads(derm(home, *arguments))
    files, size = _measure(home)
    return {
        "ids": count,
        "files_before": len(before[0]),
        "keys_before": before[1],
        "files_after": len(_traces(home, gone)[0]),
        "keys_after": _traces(home, gone)[1],
        "unknown": len(said["unknown"]),
        "left": said["left"],
        "unproved": said["unproved"],
        "files_read": files,
        "megabytes_read": round(size / 1e6),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _measure(home: Path) -> tuple[int, int]:
    files = [f for f in home.rglob("*") if f.is_file() and "source" not in f.parts]
    return len(files), sum(f.stat().st_size for f in files)


def _traces(home: Path, gone: list[str]) -> tuple[set[str], int]:
    """Files that hold an id (inside words, too), and keys of the store that do."""
    files = (f for f in home.rglob("*") if f.is_file() and "source" not in f.parts)
    found = {t.file for t in scan(sorted(files), Wanted(gone, anywhere=True))}
    with redis.Redis.from_url(ensure_redis(Settings(home=home))) as client:
        keys = [k.decode() for k in client.scan_iter(count=1000)]
    return found, sum(any(i in key for i in gone) for key in keys)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
