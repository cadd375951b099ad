"""One way to measure: contenders in turn, medians, the share of a floor, a report as JSON.

A machine that is slower for a while is then slower for all. A benchmark says what is done, and

    found = alternate({"ours": timed(work), "floor": timed(bare)}, rounds=5)
    report({"contenders": against_floor(summary(found))}, args)

A floor is what the work cannot do without (the bytes of a file, the matrix products of a pass),
run bare. `share_of_floor` is the floor's time over a contender's: 1 is as fast as can be.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Numbers = dict[str, float]
Contender = Callable[[], Numbers]


class OutOfRace(RuntimeError):
    """A contender cannot go on; what there is to say of it stands in its place.

    Attributes:
        numbers: its result, such as {"out_of_memory": 1.0}.
    """

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(str(numbers))
        self.numbers = numbers


class Clock:
    """Seconds since it was made: on the wall, and of all cores of this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> "Clock":
        """Keep what it shows now, as `wall` and `cpu`."""
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu
        return self


def timed(work: Callable[[], object], *, settle: Callable[[], object] | None = None) -> Contender:
    """A contender whose numbers are the seconds of `work`: `wall_s` and `cpu_s`.

    Args:
        settle: waits for what `work` left running, such as `torch.cuda.synchronize`; it counts.
    """

    def run() -> Numbers:
        clock = Clock()
        work()
        if settle:
            settle()
        clock.stop()
        return {"wall_s": clock.wall, "cpu_s": clock.cpu}

    return run


def alternate(
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    warm_up: int = 1,
    before: Callable[[], object] | None = None,
) -> dict[str, list[Numbers]]:
    """The numbers of each contender by round; each runs once in a round, in turn.

    Args:
        warm_up: rounds before, which are not counted.
        before: puts the world back before each run; its seconds are nobody's.
    """
    found: dict[str, list[Numbers]] = {name: [] for name in contenders}
    out: set[str] = set()
    for number in range(-warm_up, rounds):
        for name, run in contenders.items():
            if name in out:
                continue
            if before:
                before()
            try:
                numbers = run()
            except OutOfRace as end:
                found[name], numbers = [end.numbers], end.numbers
                out.add(name)
            else:
                if number >= 0:
                    found[name].append(numbers)
            label = f"round {number + 1}" if number >= 0 else "warm-up"
            sys.stderr.write(f"{label:8} {name:14} {line(numbers)}\n")
    return found


def medians(results: list[Numbers]) -> Numbers:
    """The median of each number over the rounds."""
    return {name: statistics.median(r[name] for r in results) for name in results[0]}


def spread(results: list[Numbers], name: str) -> float:
    """Largest less smallest of a number over the rounds."""
    values = [r[name] for r in results]
    return max(values) - min(values)


def summary(found: Mapping[str, list[Numbers]]) -> dict[str, Numbers]:
    """The medians of every contender."""
    return {name: medians(results) for name, results in found.items()}


def against_floor(
    found: dict[str, Numbers], floor: str = "floor", seconds: str = "cpu_s"
) -> dict[str, Numbers]:
    """The same numbers with `share_of_floor`: the floor's seconds over the contender's."""
    least = found[floor][seconds]
    return {
        name: {**n, "share_of_floor": least / n[seconds]} if seconds in n else n
        for name, n in found.items()
    }


def line(numbers: Numbers) -> str:
    """Numbers in one line."""
    return "  ".join(f"{name}={value:.4g}" for name, value in numbers.items())


def arguments(doc: str | None, *, rounds: int | None = 5) -> argparse.ArgumentParser:
    """The parser that every benchmark begins with: `--json`, and `--rounds` where it has any."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the numbers go, beside the terminal")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    return parser


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def report(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the numbers with where they were measured; write them where `--json` says."""
    rounds = {"rounds": args.rounds} if "rounds" in args else {}
    text = json.dumps({**result, **rounds, "machine": machine()}, indent=2)
    sys.stdout.write(text + "\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
