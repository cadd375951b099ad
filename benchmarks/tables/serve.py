"""What fetching 33 rows of id tables costs: in the process, from shards, with overlap, from Redis.

    python -m benchmarks.tables.serve --json serve.json

Two shard processes serve a memory-mapped table of 4 bits; Zipf ids, no two requests alike. One
client asks at a fixed rate, 1,000 and 5,000 requests a second, and each request's time counts from
when it was due, so that waiting behind a slow one counts too:

- local: the same rows from files mapped by the client itself;
- remote: `TableClient.fetch` over unix sockets;
- overlap: `start`, then work that needs no rows (`--work` microseconds), then `join`; percentiles
  are of the time beyond that work, and `hidden` is the share of remote's median that is gone;
- redis: one MGET of 33 keys that hold the same bytes, from an embedded redis-server, and decoding.

`achieved_per_s` tells whether the rate was carried. Rows a second are those of one client without
pause: with requests of 33 ids, and with 64 requests in one (`*_batched`).
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import redis

from benchmarks import harness
from benchmarks.tables.data import write_table, zipf_ids
from feature_store.client.tables import TableClient
from feature_store.tables.directory import shard_of
from feature_store.tables.fetching import ServedVersion
from feature_store.tables.shard import ShardVersion, open_shard
from jobs.services import processes, tables
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings

SHARDS, IDS, BATCHED = 2, 33, 64
Ask = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def main() -> None:
    """Write a table, serve it, ask at each rate in alternating rounds, report."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--zipf", type=float, default=1.05)
    parser.add_argument("--rates", default="1000,5000", help="requests a second")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each rate, round, contender")
    parser.add_argument("--work", type=float, default=500.0, help="microseconds of other work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
        settings = Settings(home=Path(folder))
        root = settings.paths.tables
        write_table(root, args.rows, args.dim, SHARDS)
        tables.start_shards(settings, SHARDS)
        client = tables.open_tables(settings, SHARDS)
        try:
            client.timeout_s = 5.0
            tables.publish(root, client, "v", within_s=300)
            result = _compare(settings, client, args)
        finally:
            client.close()
            stop_redis(settings.home)
            processes.stop(settings.home.absolute())
    harness.report(result, args)


def _compare(settings: Settings, client: TableClient, args: argparse.Namespace) -> dict:
    served = client.describe("v")
    mapped = [open_shard(settings.paths.tables, "v", n, SHARDS) for n in range(SHARDS)]
    asks: dict[str, Ask] = {
        "local": _local(mapped),
        "remote": lambda ids: client.fetch(served, {"t": ids}).values["t"],
        "redis": _redis(ensure_redis(settings), mapped, args),
    }
    batches = zipf_ids(args.rows, args.zipf, IDS)
    requests = list(itertools.islice(batches, 4000))
    _check(asks, requests[0])
    found: dict[str, dict[str, harness.Numbers]] = {}
    for rate in map(int, args.rates.split(",")):
        timed = {n: _paced(ask, requests, rate, args.seconds) for n, ask in asks.items()}
        timed["overlap"] = _overlapped(client, served, requests, rate, args)
        numbers = harness.summary(harness.alternate(timed, args.rounds, warm_up=1))
        alone = numbers["remote"]["p50_ms"]
        numbers["overlap"]["hidden"] = 1 - numbers["overlap"]["p50_ms"] / alone
        found[str(rate)] = numbers
    large = list(itertools.islice(zipf_ids(args.rows, args.zipf, IDS * BATCHED), 200))
    closed = {n: _closed(ask, requests) for n, ask in asks.items()}
    closed |= {f"{n}_batched": _closed(ask, large) for n, ask in asks.items()}
    rows = harness.summary(harness.alternate(closed, args.rounds, warm_up=1))
    counts = client.counts
    return {
        "contenders": rows,
        "rates": found,
        "remote_over_redis": rows["remote"]["rows_per_s"] / rows["redis"]["rows_per_s"],
        "remote_over_redis_batched": rows["remote_batched"]["rows_per_s"]
        / rows["redis_batched"]["rows_per_s"],
        "defaulted": counts.defaulted,
        "rows": args.rows,
        "dim": args.dim,
        "ids": IDS,
        "work_us": args.work,
        "shards": SHARDS,
    }


def _local(mapped: list[ShardVersion]) -> Ask:
    held = [shard.tables["t"] for shard in mapped]

    def ask(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        distinct, inverse = np.unique(ids, return_inverse=True)
        shard = shard_of(distinct, SHARDS)
        packed = np.empty((len(distinct), held[0].form.row_bytes), np.uint8)
        for number, table in enumerate(held):
            mine = np.flatnonzero(shard == number)
            packed[mine] = table.find(distinct[mine])[0]
        return held[0].form.decode(packed)[inverse]

    return ask


def _redis(url: str, mapped: list[ShardVersion], args: argparse.Namespace) -> Ask:
    client, form = redis.Redis.from_url(url), mapped[0].tables["t"].form
    step = 50_000
    for first in range(0, args.rows, step):
        ids = np.arange(first, min(first + step, args.rows), dtype=np.int64)
        shard, values = shard_of(ids, SHARDS), np.empty((len(ids), form.row_bytes), np.uint8)
        for number, held in enumerate(mapped):
            values[shard == number] = held.tables["t"].find(ids[shard == number])[0]
        client.mset({f"t:{i}": v.tobytes() for i, v in zip(ids.tolist(), values, strict=True)})

    def ask(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        values = client.mget([f"t:{i}" for i in ids.tolist()])
        return form.decode(np.frombuffer(b"".join(values), np.uint8).reshape(len(ids), -1))

    return ask


def _paced(
    ask: Ask, requests: list[npt.NDArray[np.int64]], rate: int, seconds: float
) -> harness.Contender:
    def run() -> harness.Numbers:
        return _at_rate(lambda ids: ask(ids) is None, requests, rate, seconds)

    return run


def _overlapped(
    client: TableClient,
    served: ServedVersion,
    requests: list[npt.NDArray[np.int64]],
    rate: int,
    args: argparse.Namespace,
) -> harness.Contender:
    work_s = args.work * 1e-6

    def ask(ids: npt.NDArray[np.int64]) -> float:
        pending = client.start(served, {"t": ids})
        # A core works for so long on what needs no rows; it is not asleep.
        end = time.perf_counter() + work_s
        while time.perf_counter() < end:
            pass
        pending.join()
        return work_s

    def run() -> harness.Numbers:
        return _at_rate(ask, requests, rate, args.seconds)

    return run


def _at_rate(
    ask: Callable[[npt.NDArray[np.int64]], float],
    requests: list[npt.NDArray[np.int64]],
    rate: int,
    seconds: float,
) -> harness.Numbers:
    """Percentiles of requests that are due at a fixed rate, less what `ask` says was other work."""
    count = max(int(rate * seconds), 1)
    taken = np.empty(count)
    started = time.perf_counter()
    for number in range(count):
        due = started + number / rate
        while time.perf_counter() < due:
            pass
        other = ask(requests[number % len(requests)])
        taken[number] = time.perf_counter() - due - other
    wall = time.perf_counter() - started
    return {
        "p50_ms": float(np.percentile(taken, 50)) * 1e3,
        "p99_ms": float(np.percentile(taken, 99)) * 1e3,
        "achieved_per_s": count / wall,
    }


def _closed(ask: Ask, requests: list[npt.NDArray[np.int64]]) -> harness.Contender:
    def run() -> harness.Numbers:
        clock = harness.Clock()
        for ids in requests:
            ask(ids)
        clock.stop()
        rows = sum(map(len, requests))
        return {"rows_per_s": rows / clock.wall, "client_cpu_us_per_row": clock.cpu / rows * 1e6}

    return run


def _check(asks: dict[str, Ask], ids: npt.NDArray[np.int64]) -> None:
    right = asks["local"](ids)
    for name, ask in asks.items():
        assert (ask(ids) == right).all(), f"{name} finds other rows"


if __name__ == "__main__":
    main()
