"""Rows a second of a click ranker, learned and scored: against its products alone, and FuxiCTR.

    python -m benchmarks.ranking.train --json build/train.json
    python -m benchmarks.ranking.train --projection 512 --no-fuxictr
    python -m benchmarks.ranking.train --experts 4 --no-fuxictr

One batch of random rows, the same for all: numbers, categories, four vectors of `--dim` numbers.
`ours` is what the pipeline runs: forward, backward and the optimizer, or a forward pass alone. The
floor is every matrix product of ours on tensors of the same shapes, forward and backward for
learning, and nothing else: no look-ups, no activations, no optimizer. `fuxictr` is FuxiCTR's DCNv2
of the same widths with torch's Adam, in an environment of its own. Each contender is a process,
whose processor time and peak memory are measured; they take turns.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Contender, Numbers
from benchmarks.ranking.rounds import Shape

ROOT = Path(__file__).parents[2]
FUXICTR = ROOT / ".venv-fuxictr"


def main() -> None:
    """Run the contenders in turn and report the medians."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2048, help="of a batch; default: 2048")
    parser.add_argument("--dim", type=int, default=256, help="of a vector; default: 256")
    parser.add_argument("--projection", type=int, default=0, help="0: none, the default")
    parser.add_argument("--experts", type=int, default=1, help="more than one: without FuxiCTR")
    parser.add_argument("--steps", type=int, default=3, help="of a round; default: 3")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fuxictr",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also FuxiCTR (installs .venv-fuxictr)",
    )
    args = parser.parse_args()
    shape = Shape(
        **{n: getattr(args, n) for n in ("rows", "dim", "projection", "experts", "steps")},
        threads=args.threads,
    )
    commands = {
        name: [sys.executable, "-m", "benchmarks.ranking.contender", name]
        for name in ("ours", "floor")
    }
    if args.fuxictr and args.experts == 1:
        commands["fuxictr"] = [str(_fuxictr()), "-m", "benchmarks.ranking.fuxictr_dcn"]
    processes = {name: _begun(command, shape) for name, command in commands.items()}
    try:
        contenders = {name: _contender(process) for name, process in processes.items()}
        found = harness.summary(harness.alternate(contenders, args.rounds))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    _compare(found)
    harness.report({"contenders": found, "shape": json.loads(shape.text())}, args)


def _compare(found: dict[str, Numbers]) -> None:
    """Beside each contender, how much of the floor it reaches, and how many times the rival."""
    for name, numbers in found.items():
        for what in ("train", "score"):
            rate = f"{what}_rows_per_s"
            numbers[f"{what}_share_of_floor"] = numbers[rate] / found["floor"][rate]
            if name == "ours" and "fuxictr" in found:
                numbers[f"{what}_times_fuxictr"] = numbers[rate] / found["fuxictr"][rate]


def _begun(command: list[str], shape: Shape) -> subprocess.Popen[str]:
    threads = {"OMP_NUM_THREADS": str(shape.threads), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, shape.text()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **threads},
    )


def _contender(process: subprocess.Popen[str]) -> Contender:
    def run() -> Numbers:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a contender has no pipes")
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended: exit code {process.wait()}")
        numbers: Mapping[str, float] = json.loads(line)
        return dict(numbers)

    return run


def _fuxictr() -> Path:
    """The Python of FuxiCTR's environment, which is made where it is not there."""
    python = FUXICTR / "bin" / "python"
    if not python.exists():
        needed = ROOT / "requirements" / "bench-fuxictr.in"
        subprocess.run([sys.executable, "-m", "venv", str(FUXICTR)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(needed)], check=True)
    return python


if __name__ == "__main__":
    main()
