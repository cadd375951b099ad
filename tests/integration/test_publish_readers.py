"""Readers that never stop, through twenty publishes and a rollback: no mixed day, no miss."""

import asyncio
import threading

import numpy as np
import pytest

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import shift_day
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.services.redis import ensure_redis
from tests.publishing_fixtures import START, World

pytestmark = [pytest.mark.redis, pytest.mark.integration]
DAYS = 20


class Reader(threading.Thread):
    """Reads the same users over and over; every answer must be one whole published day."""

    def __init__(self, url: str, ids: list[str], days: dict, *, cache: int, use_async: bool):
        super().__init__()
        self.client = FeatureClient(url, timeout_s=5, cache_users=cache)
        self.ids, self.days, self.use_async = ids, days, use_async
        self.stop, self.reads, self.wrong, self.seen = threading.Event(), 0, [], set()

    def run(self) -> None:
        if self.use_async:
            asyncio.run(self.loop_async())
            return
        while not self.stop.is_set():
            self.judge(*self.client.get_users(self.ids))
        self.client.close()

    async def loop_async(self) -> None:
        # One after the other and all at once, some of them answered from the cache.
        half = len(self.ids) // 2
        while not self.stop.is_set():
            self.judge(*await self.client.aget_users(self.ids))
            parts = (self.ids[:half], self.ids, self.ids[half:])
            _, whole, _ = await asyncio.gather(*map(self.client.aget_users, parts))
            self.judge(*whole)
        await self.client.aclose()

    def judge(self, vectors: np.ndarray, found: np.ndarray) -> None:
        self.reads += 1
        # Which day each row is of: no two days give a user the same vector.
        matches = {ds for ds, v in list(self.days.items()) if np.array_equal(v, vectors)}
        if not found.all() or len(matches) != 1:
            self.wrong.append((found.sum(), matches))
        self.seen |= matches


def test_twenty_publishes_and_a_rollback_without_a_mixed_read_or_a_miss(tmp_path):
    world = World(tmp_path, users=300, pins=12)
    try:
        days: dict[str, np.ndarray] = {}
        ids = [f"user{i}" for i in range(200)]
        readers: list[Reader] = []
        for day in range(DAYS + 1):
            ds = shift_day(START, day)
            world.grow(ds, change=1.0, prune=0.0)
            pool = world.pools["ctr", "user"]
            rows = dict(zip(pool.ids, pool.vectors, strict=True))
            days[ds] = np.stack([rows[i] for i in ids]).astype(np.float16).astype(np.float32)
            world.publish(ds)
            if not readers:
                url = ensure_redis(world.settings)
                ways = ((0, False), (1000, False), (0, True), (1000, True))
                readers = [Reader(url, ids, days, cache=c, use_async=a) for c, a in ways]
                for reader in readers:
                    reader.start()
        Releases(tmp_path, open_store(url)).roll_back()
        last = {r: r.reads for r in readers}
        while any(r.reads < last[r] + 3 and r.is_alive() for r in readers):
            pass
    finally:
        for reader in readers:
            reader.stop.set()
        for reader in readers:
            reader.join()
        world.close()
    for reader in readers:
        assert reader.wrong == []
        assert reader.reads > DAYS
        assert reader.client.release.ds == shift_day(START, DAYS - 1)
        assert reader.client.counters.timeouts == 0
        assert len(reader.seen) > DAYS // 2
