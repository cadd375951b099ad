"""How many events a second the simulated world makes, on one thread.

    python benchmarks/simulate.py --size small --days 5 --json simulate.json

A day counts from nothing known to four Arrow tables in memory: impressions, what followed them,
late conversions, context, both snapshots with their counts and sequences, and the truth. Digests of
earlier days are kept in memory, as they are on disk in a daily run. Process time is of one process
with one thread; writing Parquet is not part of it.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ARROW_NUM_THREADS", "1")

import pyarrow as pa

from feature_store.contracts.base import shift_day
from simulator import config as worlds
from simulator.world import World

FIRST = "2025-03-01"


def main() -> None:
    """Simulate the days and report the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("toy", "small", "large"), default="small")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pa.set_cpu_count(1)
    started = time.perf_counter()
    world = World(getattr(worlds, args.size)(), 0, FIRST)
    created_s = time.perf_counter() - started
    days = [measure(world, shift_day(FIRST, i)) for i in range(args.days)]
    report = {
        "contenders": {"ours": medians(days)},
        "size": args.size,
        "world_s": round(created_s, 3),
        "days": days,
        "machine": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    text = json.dumps(report, indent=2)
    if args.json:
        args.json.write_text(text + "\n")
    print(text)


def measure(world: World, ds: str) -> dict[str, float]:
    """One day: events, wall and process seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    events = world.day(ds).events.num_rows
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "events": events,
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "events_per_s": round(events / wall_s),
        "events_per_cpu_s": round(events / cpu_s),
    }


def medians(days: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number over the days."""
    return {name: statistics.median(d[name] for d in days) for name in days[0]}


if __name__ == "__main__":
    main()
