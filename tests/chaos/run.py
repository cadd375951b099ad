"""Strike real processes of a daily run and of a backfill, and see whether the bits come out.

    python -m tests.chaos.run --cases 30 --seed 1 --through process --json OUT

Through `process` (a command alone), `airflow` (the services of one machine) or `cluster` (those of
docker-compose.yml, which come back by themselves: tests/chaos/cluster.py). Each case takes a
prepared home, starts the command, kills one process (sometimes another one during the repetition)
with SIGKILL at a random moment, gives the same command until it succeeds, and compares every table,
snapshot, manifest, Pin index and key of the online store with what the undisturbed run left.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from jobs.services import local
from jobs.settings import Settings
from tests.chaos.case import Blow, Result, play
from tests.chaos.cluster import Campaign
from tests.chaos.lane import Lane, Run, Through

# Seconds after it was first seen within which a victim is struck: about as long as it lives.
SPANS: dict[Through, dict[str, float]] = {
    "process": {"task": 10.0, "jvm": 2.5, "python worker": 1.0, "redis": 0.8},
    "airflow": {"task": 30.0, "redis": 30.0, "scheduler": 30.0, "postgres": 30.0},
}

_DRAWS = 6


def draw(seed: int, cases: int, through: Through) -> Iterator[tuple[int, Run, list[Blow]]]:
    """Cases in turn over runs and victims; moments, and second blows, at random."""
    spans = SPANS[through]
    for number in range(cases):
        rng = random.Random(f"{seed} {through} {number}")
        run: Run = ("daily", "backfill")[number % 2]
        first = list(spans)[number // 2 % len(spans)]
        names = [first, *([rng.choice(list(spans))] if rng.random() < 0.25 else [])]
        yield number, run, [Blow(victim=n, after_s=rng.uniform(0, spans[n])) for n in names]


def main(arguments: list[str]) -> int:
    """Play the cases; 0 when all survived."""
    args = _parser().parse_args(arguments)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="derm-chaos-"))
    results: list[Result] = []
    for result in _play(args, folder):
        results.append(result)
        sys.stdout.write(_line(result) + "\n")
        sys.stdout.flush()
        if args.json:
            document = {"seed": args.seed, "cases": [_record(r) for r in results]}
            args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(r.survived for r in results) else 1


def _play(args: argparse.Namespace, folder: Path) -> Iterator[Result]:
    if args.through == "cluster":
        repairs = args.cases // 4
        campaign = Campaign(
            folder=folder, days=args.cases - repairs, repairs=repairs, seed=args.seed
        )
        yield from campaign.play()
        return
    lane = Lane(folder=folder, through=args.through)
    try:
        expected = lane.prepare()
        for number, run, blows in draw(args.seed, args.cases, args.through):
            yield struck(lane, number, run, blows, expected[run])
    finally:
        local.stop(Settings(home=lane.home))


def struck(
    lane: Lane, number: int, run: Run, blows: list[Blow], expected: dict[str, str]
) -> Result:
    """Play a case; where it ended before the blow fell, again with an earlier one."""
    for _ in range(_DRAWS):
        if (result := play(lane, number, run, blows, expected)).struck:
            return result
        blows = [replace(blow, after_s=blow.after_s / 2) for blow in blows]
    raise AssertionError(f"case {number}: {blows[0].victim} was never there to be struck")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--through", choices=(*SPANS, "cluster"), default="process")
    parser.add_argument(
        "--folder", type=Path, help="of the homes; what was prepared there is used again"
    )
    parser.add_argument("--json", type=Path, help="write the results here, case by case")
    return parser


def _record(result: Result) -> dict[str, object]:
    return {**asdict(result), "survived": result.survived}


def _line(result: Result) -> str:
    blows = ", ".join(f"{b['victim']} at {b['after_s']} s in {b['during']}" for b in result.struck)
    ended = "survived" if result.survived else f"LOST {result.exit_codes} {result.differing[:5]}"
    return (
        f"{result.number:3} {result.run:8} {blows or 'nobody'}: {ended}, "
        f"{result.commands} commands, {result.seconds} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
