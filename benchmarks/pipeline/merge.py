"""Merge a day into a pool: ours against the byte floor, DuckDB, Polars, delta-rs and Spark SQL.

    python -m benchmarks.pipeline.merge --entities 2000000 --dim 256 --active 0.2 --json OUT
    python -m benchmarks.pipeline.merge --scaling 500000,1000000,2000000 --dim 256 --json OUT

Every contender is a process of its own that stays alive: session start and imports are measured
apart. One round runs each contender once, in turn, on the same files; CPU seconds are those of the
process and all its descendants (JVM and Python workers included), memory is their anonymous memory.
The first round warms up and is not counted. All are given two cores.

With `--limit-mb` the kernel refuses each process of a contender more memory than that
(RLIMIT_DATA: what it allocates; files that it maps do not count); who does not get by is reported
as `out_of_memory`.

`duckdb` calculates in SQL; `duckdb_numpy` only joins, and calls NumPy for the average.
DuckDB and Polars live in an environment of their own:
    python3 -m venv .venv-bench && .venv-bench/bin/pip install -r requirements/bench.in
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks import harness

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONTENDERS = ("ours", "floor", "duckdb", "duckdb_numpy", "polars", "delta_rs", "spark_sql")
TARGETS = {"floor": 1.5, "duckdb": 1 / 2, "polars": 1 / 1.5, "spark_sql": 1 / 5}


class Contender:
    """A contender's process: started once, told to merge, measured from outside."""

    def __init__(self, name: str, data: Path, cores: int, limit_mb: int) -> None:
        environment = ".venv-bench" if name in ("duckdb", "duckdb_numpy", "polars") else ".venv"
        self.name, self.limited = name, limit_mb > 0
        clock = time.perf_counter()
        self.process = subprocess.Popen(
            [
                str(ROOT / environment / "bin" / "python"),
                "-m",
                "benchmarks.pipeline.merge_contenders",
                name,
                str(data),
                str(cores),
                str(limit_mb),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.ask("start")
        self.start_s = time.perf_counter() - clock

    def ask(self, command: str) -> dict[str, float]:
        """Send one command, wait for its answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line and self.limited:
            raise harness.OutOfRace({"out_of_memory": 1.0})
        if not line:
            raise RuntimeError(f"{self.name} ended during {command!r}")
        return json.loads(line)

    def round(self) -> dict[str, float]:
        """One merge: wall and CPU seconds, peak memory, rows of the result."""
        self.ask("prepare")
        before = _cpu(self._family())
        with _Peak(self.process.pid) as peak:
            clock = time.perf_counter()
            answer = self.ask("merge")
            wall = time.perf_counter() - clock
        cpu = _cpu(self._family()) - before
        return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak.bytes / 2**20, **answer}

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)


class _Peak:
    """Samples the anonymous memory of a process family."""

    def __init__(self, pid: int) -> None:
        self.bytes, self._pid, self._done = 0, pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            parent = psutil.Process(self._pid)
            family = [parent, *parent.children(recursive=True)]
            self.bytes = max(self.bytes, sum(_anonymous(p.pid) for p in family))


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0]) * 1024 if lines else 0


def _cpu(family: list[psutil.Process]) -> float:
    """CPU seconds of processes and of the children they have waited for."""
    total = 0.0
    for process in family:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def compare(args: argparse.Namespace, data: Path) -> dict[str, dict[str, float]]:
    """Alternating rounds of all contenders; medians."""
    names = args.contenders.split(",")
    running = {name: Contender(name, data, args.cores, args.limit_mb) for name in names}
    rounds = harness.alternate({n: c.round for n, c in running.items()}, args.rounds)
    for contender in running.values():
        contender.close()
    found = harness.summary(rounds)
    for name, results in rounds.items():
        if "cpu_s" in found[name]:
            found[name]["start_s"] = running[name].start_s
            found[name]["cpu_s_spread"] = harness.spread(results, "cpu_s")
    return found


def run(args: argparse.Namespace, entities: int) -> dict[str, object]:
    """Make the data, compare the contenders, drop the data."""
    scratch = Path(tempfile.mkdtemp(prefix="merge-", dir=args.scratch))
    try:
        maker = [sys.executable, str(HERE / "merge_data.py"), str(scratch)]
        numbers = [str(n) for n in (entities, args.dim, args.active, args.bucket_mb)]
        subprocess.run([*maker, *numbers, args.contenders], check=True, cwd=ROOT)
        layout = json.loads((scratch / "layout.json").read_text())
        contenders = compare(args, scratch)
    finally:
        # Spark removes its own folder while its JVM ends.
        shutil.rmtree(scratch, ignore_errors=True)
    return {"entities": entities, **layout, "contenders": contenders}


def _verdict(result: dict[str, object]) -> str:
    contenders = result["contenders"]
    assert isinstance(contenders, dict)
    lines = [f"{name:10} {harness.line(numbers)}" for name, numbers in contenders.items()]
    if "cpu_s" in contenders.get("ours", {}):
        ours = contenders["ours"]["cpu_s"]
        for name, target in TARGETS.items():
            if contenders.get(name, {}).get("cpu_s"):  # none where there was next to nothing to do
                ratio = ours / contenders[name]["cpu_s"]
                word = "met" if ratio <= target else "missed"
                lines.append(f"CPU ours / {name}: {ratio:.2f}, target <= {target:.2f}: {word}")
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print, write JSON."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--scaling", help="sizes, comma-separated: a table of ours alone")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--active", type=float, default=0.2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--bucket-mb", type=int, default=128, help="size of a pool file")
    parser.add_argument("--limit-mb", type=int, default=0, help="memory of a process; 0: no limit")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--scratch", help="folder for the data; default: the system's")
    args = parser.parse_args()
    if args.scaling:
        args.contenders = "ours"
        sizes = [int(n) for n in args.scaling.split(",")]
        results = [run(args, n) for n in sizes]
        result: dict[str, object] = {"sizes": results}
        print("\n\n".join(_verdict(r) for r in results))
    else:
        result = run(args, args.entities)
        print(_verdict(result))
    harness.report(result, args)


if __name__ == "__main__":
    main()
