"""How fast users reach Redis: ours, the server's ceiling, and Feast, in alternating rounds.

    python -m benchmarks.pipeline.publish --json build/publish.json [--no-feast]

One embedded redis-server, one pool of random unit vectors, three contenders:

- ours: everything that `derm publish` does per row, from the pool's Parquet files to the last
  acknowledged key (read, convert to float16, encode, send, wait), every user, one empty slot;
- ceiling: the same keys and values as MSET commands that were assembled beforehand, pushed
  through one plain socket while the replies are drained: what the server itself can take;
  ceiling_set: the same as one SET per key, which is what redis-benchmark and mass insertion by
  `redis-cli --pipe` send;
- feast: `materialize` of the same vectors from Parquet into Feast's Redis online store, in an
  environment of its own; feast_protos: its `online_write_batch` alone, with
  packed values in protocol buffers made beforehand, the best that can be said for it.

Beside the rate, the CPU microseconds per row of this process and of the server: on a machine whose
cores are shared the rates fall together with the cores that are free, the costs do not.

Rounds alternate, and each contender starts from an empty key space. Medians are reported.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from benchmarks import harness
from feature_store.config import PublishingConfig
from feature_store.contracts.base import day_number
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.schemas import pack
from feature_store.online.codec import ValueFormat
from feature_store.online.slots import BucketFiles, SlotWrite, files_by_bucket
from feature_store.online.store import SlotState
from feature_store.online.stores import resp
from jobs.engine.bucket_writers import write_buckets
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings

DS = "2025-03-01"
BUCKETS = 8
ROOT = Path(__file__).resolve().parents[2]
FEAST = ROOT / ".venv-feast"


def main() -> None:
    """Run every round and report."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
        home = Path(folder)
        url = ensure_redis(Settings(home=home))
        try:
            harness.report(_compare(home, url, args), args)
        finally:
            stop_redis(home)


def _arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument(
        "--threads", type=int, default=0, help="writers of ours; 0: as many as cores"
    )
    parser.add_argument(
        "--feast",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also Feast (installs .venv-feast)",
    )
    parser.add_argument("--feast-users", type=int, default=20_000)
    return parser.parse_args()


def _compare(home: Path, url: str, args: argparse.Namespace) -> dict[str, Any]:
    ids, vectors = pool(args.users, args.dim)
    buckets = write_pool(home, ids, vectors)
    msets, sets = _wire_bytes(ids, vectors, each=False), _wire_bytes(ids, vectors, each=True)
    contenders: dict[str, Callable[[], float]] = {
        "ours": lambda: _ours(url, buckets, args),
        "ceiling": lambda: _ceiling(url, msets),
        "ceiling_set": lambda: _ceiling(url, sets),
    }
    if args.feast:
        contenders["feast"] = lambda: run_feast(url, "materialize", args)["rows_per_s"]
        contenders["feast_protos"] = lambda: run_feast(url, "write_protos", args)["rows_per_s"]
    client = redis.Redis.from_url(url)
    costs = {n: partial(_costs, client, run, args.users) for n, run in contenders.items()}
    rounds = harness.alternate(costs, args.rounds, warm_up=0, before=client.flushall)
    return _told(rounds, args)


def _costs(client: redis.Redis, contender: Callable[[], float], users: int) -> dict[str, float]:
    """Rows per second, CPU microseconds per row, and the memory that the rows took."""
    before, own = _server(client), time.process_time()
    rate = contender()
    own, after = time.process_time() - own, _server(client)
    return {
        "rows_per_s": round(rate),
        "client_cpu_us": round(1e6 * own / users, 3),
        "server_cpu_us": round(1e6 * (after["cpu"] - before["cpu"]) / users, 3),
        "memory_per_user": round((after["memory"] - before["memory"]) / users),
    }


def _server(client: redis.Redis) -> dict[str, float]:
    cpu = client.info("cpu")
    used = cpu["used_cpu_sys"] + cpu["used_cpu_user"]
    return {"cpu": used, "memory": client.info("memory")["used_memory"]}


def _told(rounds: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> dict[str, Any]:
    contenders = harness.summary(rounds)
    for name, results in rounds.items():
        contenders[name]["rows_per_s_low"] = min(r["rows_per_s"] for r in results)
        contenders[name]["rows_per_s_high"] = max(r["rows_per_s"] for r in results)
        if name.startswith("feast"):
            # Another process, and fewer users: its costs are not measured here.
            for key in ("client_cpu_us", "server_cpu_us", "memory_per_user"):
                del contenders[name][key]
    ours = contenders["ours"]["rows_per_s"]
    ratios = {
        f"ours_to_{name}": round(ours / values["rows_per_s"], 3)
        for name, values in contenders.items()
        if name != "ours"
    }
    sizes = {"users": args.users, "dim": args.dim, "raw_bytes_per_user": 2 * args.dim}
    return {"contenders": contenders, **ratios, **sizes}


def pool(users: int, dim: int) -> tuple[pa.Array, np.ndarray]:
    """Ids and unit vectors [users, dim]."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((users, dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.array([f"user{i:08d}" for i in range(users)], pa.string()), vectors


def write_pool(home: Path, ids: pa.Array, vectors: np.ndarray) -> list[BucketFiles]:
    """The pool as merge leaves it: one Parquet file per bucket."""
    table, lake, of = pool_table("ctr", "user"), Lake(home / "lake"), bucket_of(ids, BUCKETS)
    staged = []
    for bucket in range(BUCKETS):
        rows = np.flatnonzero(of == bucket)
        days = pa.array([DS]).take(pa.array(np.zeros(len(rows), np.int64)))
        columns = [
            ids.take(pa.array(rows)),
            pack(vectors[rows]),
            days,
            days,
            pa.array(np.ones(len(rows)), pa.int32()),
            pa.nulls(len(rows), pa.binary()),
            pa.array(["space"]).take(pa.array(np.zeros(len(rows), np.int64))),
        ]
        schema = [
            pa.field(c.name, a.type, c.nullable)
            for c, a in zip(table.columns, columns, strict=True)
        ]
        data = pa.table(columns, schema=pa.schema(schema))
        staged.append(stage_file(lake.root, table, DS, data, bucket=bucket))
    layout = {"dtype": "float32", "dim": str(vectors.shape[1]), "buckets": str(BUCKETS)}
    lake.commit(table, DS, staged, properties=layout)
    files = files_by_bucket(lake.files(table.name, DS))
    return [BucketFiles(bucket=b, target=files[b]) for b in sorted(files)]


def _wire_bytes(ids: pa.Array, vectors: np.ndarray, *, each: bool) -> list[tuple[bytes, int]]:
    """A ceiling's commands, whole, in pieces of 8,192 rows: one SET each, or MSETs of 256."""
    layout = ValueFormat(dtype="float16", dim=vectors.shape[1])
    pieces = []
    for start in range(0, len(ids), 8192):
        part = vectors[start : start + 8192]
        values = layout.encode(part, np.full(len(part), day_number(DS), np.uint16))
        part_ids, prefix = ids[start : start + 8192], b"derm:ctr:ceiling0:a:"
        payload = (
            resp.set_each(prefix, part_ids, values, None)
            if each
            else resp.mset(prefix, part_ids, values, 256)
        )
        pieces.append((b"".join(payload.chunks), payload.replies))
    return pieces


def _ours(url: str, buckets: list[BucketFiles], args: argparse.Namespace) -> float:
    started = time.perf_counter()
    write_all(url, buckets, "derm:ctr:bench000:a:", args.users, args.dim, args.threads)
    return args.users / (time.perf_counter() - started)


def write_all(
    url: str, buckets: list[BucketFiles], prefix: str, users: int, dim: int, threads: int
) -> None:
    """Every user of the pool into one slot."""
    layout = ValueFormat(dtype="float16", dim=dim)
    plan = SlotWrite(
        prefix=prefix, ds=DS, base_ds=None, space_id="space", format=layout, pool_dtype="<f4"
    )
    state = SlotState(
        state="writing",
        ds=DS,
        pool_digest="bench",
        space_id="space",
        dtype="float16",
        dim=dim,
        buckets=BUCKETS,
        users=users,
    )
    log = logging.getLogger("bench")
    write_buckets(url, PublishingConfig(), plan, buckets, state, threads, log)


def _ceiling(url: str, wire: list[tuple[bytes, int]]) -> float:
    connection = redis.Redis.from_url(url, protocol=2).connection_pool.get_connection()
    owed, started = 0, time.perf_counter()
    for body, replies in wire:
        connection.send_packed_command([body], check_health=False)
        for _ in range(owed):
            connection.read_response()
        owed = replies
    for _ in range(owed):
        connection.read_response()
    seconds = time.perf_counter() - started
    connection.disconnect()
    stored = redis.Redis.from_url(url).dbsize()
    return stored / seconds


def run_feast(url: str, mode: str, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement of feast_store.py, in Feast's own environment."""
    python = FEAST / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(FEAST)], check=True)
        needed = ROOT / "requirements" / "bench-feast.in"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(needed)], check=True)
    script = Path(__file__).with_name("feast_store.py")
    command = [str(python), str(script), mode, str(args.feast_users), str(args.dim)]
    done = subprocess.run(command, input=url, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Feast failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
