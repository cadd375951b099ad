"""Join examples with the pool of the day before each: ours against DuckDB, Polars and the floor.

    python -m benchmarks.pipeline.asof --examples 500000 --entities 200000 --days 10 --json OUT

Each run is a process of its own, imports included; peak memory is anonymous memory. The floor reads
every file of the pools once and copies as many vectors as there are examples. DuckDB and Polars
live in an environment of their own:
    python3 -m venv .venv-bench && .venv-bench/bin/pip install -r requirements/bench.in
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import harness
from benchmarks.pipeline.merge_data import ids_by_bucket, pool_rows
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.layout import Layout

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FIRST = "2025-03-01"
BUCKETS = 8
CONTENDERS = ("ours", "floor", "duckdb", "polars")
_DAY_US = 86_400_000_000


def main() -> None:
    """Make the data, run everybody in turn, report."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--examples", type=int, default=300_000, help="over all days")
    parser.add_argument("--entities", type=int, default=100_000, help="of a pool")
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--bench-env", type=Path, default=ROOT / ".venv-bench")
    parser.add_argument("--scratch", help="folder for the data; default: the system's")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="asof-", dir=args.scratch))
    try:
        write_pools(folder, args.entities, args.days, args.dim)
        write_examples(folder, args.examples, args.entities, args.days)
        runs = {
            name: contender(name, folder, args.bench_env) for name in args.contenders.split(",")
        }
        found = harness.summary(harness.alternate(runs, args.rounds))
    finally:
        shutil.rmtree(folder)
    sizes = {n: getattr(args, n) for n in ("examples", "entities", "days", "dim")}
    harness.report({**sizes, "contenders": harness.against_floor(found)}, args)


def contender(name: str, folder: Path, bench: Path) -> harness.Contender:
    """A contender as a process in its environment."""
    python = bench / "bin" / "python" if name in ("duckdb", "polars") else Path(sys.executable)
    command = [str(python), "-m", "benchmarks.pipeline.asof_contenders", name, str(folder)]

    def run() -> harness.Numbers:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        numbers: harness.Numbers = json.loads(done.stdout)
        return numbers

    return run


def write_pools(folder: Path, entities: int, days: int, dim: int) -> None:
    """A pool for each day, other vectors every day."""
    lake, table = Lake(folder / "lake"), pool_table("ctr", "user")
    properties = Layout(dim=dim, buckets=BUCKETS).properties()
    buckets = [old for old, _ in ids_by_bucket(entities, 0, BUCKETS)]
    for number, ds in enumerate(days_between(FIRST, shift_day(FIRST, days - 1))):
        staged = [
            stage_file(
                lake.root,
                table,
                ds,
                pool_rows(ids, np.random.default_rng([number, b]), dim),
                bucket=b,
            )
            for b, ids in enumerate(buckets)
        ]
        lake.commit(table, ds, staged, properties=properties)
    (folder / "layout.json").write_text(json.dumps({"dim": dim}))


def write_examples(folder: Path, examples: int, entities: int, days: int) -> None:
    """Examples in order of time on the days after the pools', of users that mostly are in them."""
    random = np.random.default_rng(1)
    users = random.integers(0, int(entities * 1.05), examples) * 7919 % 10**9
    start = np.datetime64(FIRST, "us").astype(np.int64) + _DAY_US
    times = np.sort(start + random.integers(0, days * _DAY_US, examples))
    table = {
        "user_id": pa.array([f"u{u}" for u in users.tolist()]),
        "ts": pa.array(times, pa.timestamp("us", tz="UTC")),
        "click": pa.array(random.random(examples) < 0.1),
    }
    pq.write_table(pa.table(table), folder / "examples.parquet")


if __name__ == "__main__":
    main()
