"""How fast a ranker reads 500 users, decode included: ours, plain redis-py, Feast.

    python -m benchmarks.pipeline.reads --json build/reads.json [--no-feast]

One embedded redis-server holds one released day. Contenders alternate in rounds;
percentiles are those of a round, and of the rounds the median:

- ours: `FeatureClient.get_users`, which proves that all values are of one release;
- redis_py: the same MGET and one `np.frombuffer`, without pointer, header check or found mask;
- feast: `get_online_features` of packed values, in its own environment.

`*_busy` are the same reads while a publish, a process of its own, writes the other slot as fast as
it can.
"""

import argparse
import logging
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import redis

from benchmarks import harness
from benchmarks.pipeline import publish as writing
from feature_store.client.client import FeatureClient
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.online.codec import CURRENT_KEY, HEADER_BYTES, release_key, users_prefix
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings

IDS = 500
Read = Callable[[list[str]], np.ndarray]


def main() -> None:
    """Publish one day, read it in alternating rounds, report."""
    args = _arguments()
    logging.getLogger("bench").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="derm-bench-") as folder:
        url = ensure_redis(Settings(home=Path(folder)))
        try:
            result = _compare(Path(folder), url, args)
        finally:
            stop_redis(Path(folder))
    harness.report(result, args)


def _arguments() -> argparse.Namespace:
    parser = harness.arguments(__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--reads", type=int, default=200, help="reads of 500 users per round")
    parser.add_argument(
        "--feast",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also Feast (installs .venv-feast)",
    )
    parser.add_argument("--feast-users", type=int, default=20_000)
    return parser.parse_args()


def _compare(home: Path, url: str, args: argparse.Namespace) -> dict:
    ids, vectors = writing.pool(args.users, args.dim)
    buckets = writing.write_pool(home, ids, vectors)
    prefix = users_prefix("ctr", "space", "a")
    writing.write_all(url, buckets, prefix, args.users, args.dim, threads=1)
    _release(url, prefix, args)
    names = ids.to_pylist()
    found: dict[str, harness.Numbers] = {}
    contenders = {"ours": _ours(url), "redis_py": _plain(url, prefix, args.dim)}
    for busy in ("", "_busy"):
        timed = {n + busy: partial(_time, read, names, args) for n, read in contenders.items()}
        with _publishing(url, buckets, args) if busy else nullcontext():
            found |= harness.summary(harness.alternate(timed, args.rounds, warm_up=0))
            if args.feast:
                seconds = writing.run_feast(url, "read", args)["seconds"]
                found["feast" + busy] = _summary(seconds)
    return {"contenders": found, "ids": IDS, "users": args.users, "dim": args.dim}


def _release(url: str, prefix: str, args: argparse.Namespace) -> None:
    entry = PublishedUpstream(
        upstream="ctr",
        space_id="space",
        dim=args.dim,
        dtype="float16",
        slot="a",
        users_prefix=prefix,
        users=args.users,
        pool_digest="",
        index_path="",
        index_digest="",
        pins=0,
    )
    release = Release(release_id="bench", ds=writing.DS, upstreams=(entry,))
    client = redis.Redis.from_url(url)
    client.set(release_key("bench"), release.model_dump_json())
    client.set(CURRENT_KEY, "bench")


def _ours(url: str) -> Read:
    client = FeatureClient(url, timeout_s=5)
    return lambda ids: client.get_users(ids)[0]


def _plain(url: str, prefix: str, dim: int) -> Read:
    client = redis.Redis.from_url(url)

    def read(ids: list[str]) -> np.ndarray:
        values = client.mget([prefix + i for i in ids])
        rows = np.frombuffer(b"".join(values), np.uint8).reshape(len(ids), -1)
        packed = np.ascontiguousarray(rows[:, HEADER_BYTES:]).view(np.float16)
        return packed.reshape(len(ids), dim).astype(np.float32)

    return read


def _time(read: Read, names: list[str], args: argparse.Namespace) -> harness.Numbers:
    rng, seconds = np.random.default_rng(0), []
    for _ in range(args.reads):
        ids = [names[i] for i in rng.integers(0, len(names), IDS)]
        started = time.perf_counter()
        vectors = read(ids)
        seconds.append(time.perf_counter() - started)
        if not vectors.any(axis=1).all():
            sys.exit("a read missed a user")
    return _summary(seconds)


@contextmanager
def _publishing(url: str, buckets: list, args: argparse.Namespace) -> Iterator[None]:
    """Another process writes the other slot again and again."""
    made = multiprocessing.get_context("spawn")
    writer = made.Process(target=_publish, args=(url, buckets, args.users, args.dim), daemon=True)
    writer.start()
    try:
        yield
    finally:
        alive = writer.is_alive()
        writer.kill()
        writer.join()
    if not alive:
        sys.exit("the publish ended before the reads did")


def _publish(url: str, buckets: list, users: int, dim: int) -> None:
    prefix = users_prefix("ctr", "space", "b")
    while True:
        writing.write_all(url, buckets, prefix, users, dim, threads=1)


def _summary(seconds: list[float]) -> dict[str, float]:
    milliseconds = np.array(seconds) * 1000
    return {
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
        "users_per_s": round(IDS / float(np.median(seconds))),
    }


if __name__ == "__main__":
    main()
