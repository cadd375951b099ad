"""What breaks in the middle of a publish, on real servers: readers keep one complete day.

Every case ends the same way: the error said what to do, readers still see the whole day before,
nothing was lost, and running the step again completes the day.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, StoreError
from feature_store.contracts.tables import pool_table
from feature_store.online.releases import Releases
from feature_store.online.slots import files_by_bucket, ids_of
from feature_store.online.store import open_store, slot_state
from jobs.services import redis as service
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings
from tests.pipelines import UPSTREAMS
from tests.publishing_fixtures import START, World, patient_client

pytestmark = [pytest.mark.redis, pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]
NEXT = shift_day(START, 1)
# Slow enough that a publish of this world takes about a second, so that it can be interrupted.
SLOW = 60_000
KILLS = int(os.environ.get("DERM_TEST_KILLS", "6"))


class Published:
    """A world with one released day, a second one waiting, and a reader."""

    def __init__(self, root: Path) -> None:
        self.world = World(root, users=1000, pins=20)
        self.world.grow(START)
        self.world.publish(START)
        self.seen = self.pool()
        self.world.grow(NEXT)
        for u in UPSTREAMS:
            self.world.step("index", NEXT, u)
        self.url = ensure_redis(self.world.settings)
        self.admin = redis.Redis.from_url(self.url)
        self.idle = self.reader().release.upstreams[0].users_prefix.replace(":a:", ":b:")

    def pool(self):
        pool = self.world.pools["ctr", "user"]
        return pool.ids.tolist(), pool.vectors.astype(np.float16).astype(np.float32)

    def reader(self) -> FeatureClient:
        return patient_client(ensure_redis(self.world.settings))

    def assert_readers_see(self, ds: str, pool) -> None:
        reader = self.reader()
        vectors, found = reader.get_users(pool[0])
        assert reader.release.ds == ds
        assert found.all()
        np.testing.assert_array_equal(vectors, pool[1])

    def publish_slowly(self) -> "Attempt":
        """Start a publish, and return once at least one bucket of it is done."""
        attempt = Attempt(self)
        attempt.start()
        store, deadline = open_store(self.url), time.monotonic() + 20
        while time.monotonic() < deadline and attempt.is_alive():
            state = slot_state(store, self.idle)
            if state and state.state == "writing" and state.done:
                return attempt
            time.sleep(0.005)
        raise AssertionError("the publish ended before it could be interrupted")

    def complete(self) -> None:
        """Run everything again, and check that readers see exactly the new day."""
        self.world.with_publishing(bytes_per_s=0)
        for u in UPSTREAMS:
            self.world.step("publish", NEXT, u)
        self.world.step("release", NEXT)
        self.assert_readers_see(NEXT, self.pool())
        assert self.world.step("audit", NEXT).metrics["audited"] == 1


class Attempt(threading.Thread):
    """A publish of the second day at limited bandwidth, and what became of it."""

    def __init__(self, published: Published) -> None:
        super().__init__()
        self.published, self.error = published, None

    def run(self) -> None:
        self.published.world.with_publishing(bytes_per_s=SLOW)
        try:
            self.published.world.step("publish", NEXT, "ctr")
        except StoreError as error:
            self.error = error

    def refused(self) -> StoreError:
        self.join(60)
        assert self.error is not None, "the publish should have failed"
        return self.error


@pytest.fixture
def published(tmp_path):
    published = Published(tmp_path)
    yield published
    published.world.close()


def test_redis_killed_and_restarted(published):
    attempt = published.publish_slowly()
    folder = published.world.root / "services" / "redis"
    os.kill(service._state(folder)["pid"], signal.SIGKILL)
    error = attempt.refused()
    assert "start or repair Redis" in error.hint
    published.assert_readers_see(START, published.seen)
    published.complete()


def test_redis_out_of_memory(published):
    attempt = published.publish_slowly()
    published.admin.config_set("maxmemory", 1)
    error = attempt.refused()
    assert "out of memory" in error.what
    assert "raise maxmemory" in error.hint
    published.assert_readers_see(START, published.seen)
    published.admin.config_set("maxmemory", 0)
    published.complete()


def test_connection_cut(published):
    attempt = published.publish_slowly()
    published.admin.client_kill_filter(_type="normal", skipme=True)
    error = attempt.refused()
    assert "continues where it stopped" in error.hint
    published.assert_readers_see(START, published.seen)
    store, lake = open_store(published.url), published.world.lake
    done = slot_state(store, published.idle).done
    # What is taken out of a bucket that was done stays out: it is not written again.
    files = files_by_bucket(lake.files(pool_table("ctr", "user").name, NEXT))
    key = f"{published.idle}{ids_of(files[int(min(done))])[-1]}"
    value = store.get(key)
    store.delete(key)
    published.world.with_publishing(bytes_per_s=0)
    published.world.step("publish", NEXT, "ctr")
    assert store.get(key) is None
    store.put(key, value)
    published.complete()


def test_a_disk_that_is_full_while_the_index_is_built(tmp_path):
    """A real limit of the operating system, on the size of files that this process writes."""
    world = World(tmp_path, users=200, pins=600)
    try:
        for ds in (START, NEXT):
            world.grow(ds)
            if ds == START:
                world.publish(ds)
        client = patient_client(ensure_redis(world.settings), home=world.root)
        before = client.search(user_id="user1", k=5)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(StoreError, match="could not be written") as error:
                world.step("index", NEXT, "ctr")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "free space" in error.value.hint
        np.testing.assert_array_equal(client.search(user_id="user1", k=5).ids, before.ids)
        assert client.release.ds == START
        world.publish(NEXT)
        assert client.index.manifest.ds == NEXT
        assert world.step("audit", NEXT).metrics["audited"] == 1
    finally:
        world.close()


def test_read_only_replica(published, tmp_path_factory):
    home = tmp_path_factory.mktemp("replica")
    replica = ensure_redis(Settings(home=home))
    try:
        admin = redis.Redis.from_url(replica)
        primary = published.admin.connection_pool.connection_kwargs
        admin.config_set("masterauth", primary["password"])
        admin.replicaof("127.0.0.1", primary["port"])
        deadline = time.monotonic() + 20
        while admin.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        published.world.redis_url = replica
        with pytest.raises(StoreError, match="read-only replica") as error:
            published.world.step("publish", NEXT, "ctr")
        assert "DERM_REDIS_URL at the primary" in error.value.hint
        # A replica serves readers all the same.
        published.assert_readers_see(START, published.seen)
        published.world.redis_url = ""
        published.complete()
    finally:
        stop_redis(home)


def test_wrong_password(published):
    published.world.redis_url = published.url.replace("redis://:", "redis://:wrong")
    with pytest.raises(StoreError, match="refused the user or the password") as error:
        published.world.step("publish", NEXT, "ctr")
    assert "wrong" not in error.value.where


def test_evicted_keys_are_noticed_and_written_again(published):
    # As a maxmemory-policy of allkeys-lru would: keys vanish behind the slot's back.
    published.complete()
    later = shift_day(NEXT, 1)
    published.world.grow(later)
    idle = published.idle.replace(":b:", ":a:")
    for key in published.admin.scan_iter(f"{idle}*"):
        published.admin.delete(key)
    with pytest.raises(StoreError, match="does not hold what was written") as error:
        published.world.step("publish", later, "ctr")
    assert "maxmemory-policy" in error.value.hint
    assert published.world.step("publish", later, "ctr").metrics["full"] == 1


def test_two_publishes_at_once(published):
    attempt = published.publish_slowly()
    with pytest.raises(StoreError, match="another publish of ctr is running"):
        published.world.step("publish", NEXT, "ctr")
    attempt.join()
    assert attempt.error is None


def test_a_store_that_lost_the_day_before_its_release_gets_it_again(published):
    """Killed after both publishes, it comes back with what it saved after the last release."""
    for u in UPSTREAMS:
        published.world.step("publish", NEXT, u)
    os.kill(int(published.admin.info("server")["process_id"]), signal.SIGKILL)
    published.assert_readers_see(START, published.seen)
    published.world.step("release", NEXT)
    published.assert_readers_see(NEXT, published.pool())
    assert published.world.step("audit", NEXT).metrics["audited"] == 1


def test_a_slot_that_holds_a_later_day_is_left_alone(published):
    published.complete()
    later = shift_day(NEXT, 1)
    published.world.grow(later)
    for u in UPSTREAMS:
        published.world.step("publish", later, u)
    with pytest.raises(GuardFailed, match="does not hold the users of this release"):
        published.world.step("release", START)
    assert slot_state(open_store(published.url), published.idle.replace(":b:", ":a:")).ds == later


def test_a_publisher_killed_at_random_points_loses_nothing(published):
    """Kill -9 at a random moment, look at what readers see, run again; day after day."""
    rng, today, seen = random.Random(0), NEXT, (START, published.seen)
    interrupted = 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.publish_process"]
        process = subprocess.Popen(
            [*command, str(published.world.root), today, str(SLOW)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        with process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 1.2))
            interrupted += process.poll() is None
            process.kill()
        now = (today, published.pool())
        current = Releases(published.world.root, open_store(published.url)).current().ds
        assert current in (seen[0], today)
        published.assert_readers_see(*(now if current == today else seen))
        for u in UPSTREAMS:
            published.world.step("publish", today, u)
        published.world.step("release", today)
        published.assert_readers_see(*now)
        assert published.world.step("audit", today).metrics["audited"] == 1
        seen, today = now, shift_day(today, 1)
        published.world.grow(today)
        for u in UPSTREAMS:
            published.world.step("index", today, u)
    assert interrupted > KILLS // 2
