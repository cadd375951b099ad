"""Faults on a little home, by the hundred: kills, pairs of commands, tampering, losses, clocks.

    python -m tests.chaos.faults --kind kill --seed 1 --each 5 --results faults.jsonl
    python -m tests.chaos.faults --kind kill --only 'forget Pins' --seed 3 --results /tmp/one.jsonl
    python -m tests.chaos.faults --table faults.jsonl

A home of thirty users (tests/chaos/little.py) is prepared once and copied before every case, and
commands are copies of this process, so that a case takes seconds. Results are lines of JSON; cases
that are in the file are not played again, so an interrupted run goes on. `--table` prints what the
tables of docs/reliability.md show.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos import clocks, kills, losses, pairs, process, table, tampered
from tests.chaos.fault import Result, prepare
from tests.chaos.stage import Stage

KINDS: dict[str, Callable[[Stage, int, int], Iterator[tuple[str, int, Callable[[], Result]]]]] = {
    "kill": kills.cases,
    "pair": pairs.cases,
    "tamper": tampered.cases,
    "loss": losses.cases,
    "clock": clocks.cases,
}


def main(arguments: list[str]) -> int:
    """Play what is not played yet; 0 when everything survived."""
    args = _parser().parse_args(arguments)
    if args.table:
        sys.stdout.write(table.of_faults(_read(args.table)) + "\n")
        return 0
    folder = args.folder or Path(tempfile.mkdtemp(prefix="derm-faults-"))
    until = time.monotonic() + 60 * args.minutes
    done = {(c["kind"], c["name"], c["seed"]): c for c in _read(args.results)}
    process.prepare()
    stage = Stage(folder)
    prepare(stage)
    played: list[Result] = []
    try:
        for kind in args.kind or KINDS:
            for name, seed, play in KINDS[kind](stage, args.seed, args.each):
                wanted = not args.only or name in args.only
                if not wanted or (kind, name, seed) in done or time.monotonic() > until:
                    continue
                played.append(_timed(kind, name, seed, play))
                _keep(args.results, played[-1])
    finally:
        stage.kill_store()
    return int(any(not r.survived for r in played))


def _timed(kind: str, name: str, seed: int, play: Callable[[], Result]) -> Result:
    begun = time.monotonic()
    try:
        result = play()
    except (AssertionError, RuntimeError, TimeoutError) as error:
        result = Result(kind=kind, name=name, seed=seed, wrong=[str(error)[-1500:]])
    # Which of two commands began is part of `how`.
    return dataclasses.replace(
        result, name=name, how=_how(result, name), seconds=round(time.monotonic() - begun, 1)
    )


def _how(result: Result, name: str) -> str:
    return result.how if result.name == name else f"{result.name}: {result.how}"


def _keep(path: Path, result: Result) -> None:
    line = dataclasses.asdict(result) | {"survived": result.survived}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    end = "survived" if result.survived else f"NOT: {result.wrong[:3]}"
    noticed = f" ({result.noticed})" if result.noticed else ""
    sys.stdout.write(f"{result.kind} {result.name}, seed {result.seed}{noticed}: {end}\n")
    sys.stdout.flush()


def _read(path: Path | None) -> list[dict[str, object]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=tuple(KINDS), action="append", help="default: all")
    parser.add_argument("--only", metavar="NAME", action="append", help="the cases of these names")
    parser.add_argument("--seed", type=int, default=1, help="of the first; others count on from it")
    parser.add_argument("--each", type=int, default=1, help="so many seeds of each case")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no case after so many")
    parser.add_argument("--folder", type=Path, help="of the home; prepared states there are kept")
    parser.add_argument("--results", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--table", type=Path, metavar="RESULTS", help="print the tables instead")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
