"""How many events a second a simulated world makes, on one thread.

    python -m benchmarks.pipeline.simulate --size small --days 5 --json simulate.json
    python -m benchmarks.pipeline.simulate --dataset market --history 30

A day counts from nothing known to Arrow tables in memory: impressions, what followed them, late
conversions, context, both snapshots with their counts and sequences, the truth, and a market's
requests, campaigns and offsite pages. Digests of earlier days are kept in memory, as they are on
disk in a daily run; those of `--history` days are there before the first that is measured. Process
time is of one process with one thread; writing Parquet is not part of it.
"""

import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ARROW_NUM_THREADS", "1")

import pyarrow as pa

from benchmarks import harness
from feature_store.contracts.base import shift_day
from simulator import config as worlds
from simulator.market import config as markets
from simulator.market.config import SIMULATED, WORLDS
from simulator.market.worlds import Simulated, Simulation, made

FIRST = "2025-03-01"


def main() -> None:
    """Simulate the days and report the medians."""
    parser = harness.arguments(__doc__, rounds=None)
    parser.add_argument("--size", choices=("toy", "small", "large"), default="small")
    parser.add_argument("--dataset", choices=WORLDS, default=SIMULATED)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--history", type=int, default=0, help="days before those measured")
    args = parser.parse_args()
    pa.set_cpu_count(1)
    started = time.perf_counter()
    world = made(args.dataset, _sized(args.dataset, args.size), 0, FIRST)
    created_s = time.perf_counter() - started
    if args.history:
        world.day(shift_day(FIRST, args.history - 1))
    days = [measure(world, shift_day(FIRST, args.history + i)) for i in range(args.days)]
    result = {
        "contenders": {"ours": harness.medians(days)},
        "dataset": args.dataset,
        "size": args.size,
        "history_days": args.history,
        "world_s": round(created_s, 3),
        "days": days,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    harness.report(result, args)


def _sized(dataset: str, size: str) -> Simulation:
    shaped = markets.MARKETS.get(dataset)
    return shaped(getattr(markets, size)()) if shaped else getattr(worlds, size)()


def measure(world: Simulated, ds: str) -> dict[str, float]:
    """One day: events, wall and process seconds."""
    clock = harness.Clock()
    events = world.day(ds).events.num_rows
    clock.stop()
    return {
        "events": events,
        "wall_s": round(clock.wall, 3),
        "cpu_s": round(clock.cpu, 3),
        "events_per_s": round(events / clock.wall),
        "events_per_cpu_s": round(events / clock.cpu),
    }


if __name__ == "__main__":
    main()
