"""Play seeded schedules of faults against the serving of the id tables.

    python -m tests.chaos.tables --schedules 10000
    python -m tests.chaos.tables --processes 50

The protocol is the one that the processes run (feature_store/tables: serving, publishing, fetching,
ledger, wire); clock, messages, files at hand and deaths are simulated, so a seed plays again
exactly. Exit code 1 and the seed when a response mixes versions or a publication is lost.
"""

import argparse
import json
import sys
import time
from collections import Counter

from tests.chaos.tables.processes import play_processes
from tests.chaos.tables.simulation import FAULTS, play
from tests.chaos.tables.world import Broken, World


def main() -> int:
    """Play them, and say what was met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--processes", type=int, help="so many schedules on real shard processes instead"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    args = parser.parse_args()
    if args.processes:
        return _on_processes(args)
    world, met, started = World(), Counter[str](), time.monotonic()
    broken: list[str] = []
    for seed in range(args.first, args.first + args.schedules):
        try:
            met += play(world, seed)
        except Broken as error:
            broken.append(str(error))
        if sys.stderr.isatty() or (seed + 1) % 1000 == 0:
            sys.stderr.write(f"\r{seed + 1 - args.first} schedules, {len(broken)} broken")
    sys.stderr.write("\n")
    result = {
        "schedules": args.schedules,
        "seconds": round(time.monotonic() - started, 1),
        "broken": broken,
        "faults": {fault: met[fault] for fault in FAULTS if fault in met},
        "met": dict(sorted((k, n) for k, n in met.items() if k not in FAULTS)),
    }
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        for line in broken:
            sys.stdout.write(f"BROKEN {line}\n")
        for name, count in {**result["faults"], **result["met"]}.items():
            sys.stdout.write(f"{name:45} {count:>10,}\n")
        sys.stdout.write(f"{args.schedules} schedules, {len(broken)} broken promises\n")
    return 1 if broken else 0


def _on_processes(args: argparse.Namespace) -> int:
    try:
        met = play_processes(args.processes, args.first)
    except Broken as broken:
        sys.stdout.write(f"BROKEN {broken}\n")
        return 1
    if args.json:
        sys.stdout.write(json.dumps({"processes": args.processes, "met": met}) + "\n")
    else:
        for name, count in sorted(met.items()):
            sys.stdout.write(f"{name:45} {count:>10,}\n")
        sys.stdout.write(f"{args.processes} schedules on processes, 0 broken promises\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
