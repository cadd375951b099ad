"""The client of a ranker, on a real server: time-outs, caches, flips in the middle, asyncio."""

import asyncio

import numpy as np
import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.client.connections import Connections
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import InputError, StoreError
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.services.redis import ensure_redis
from tests.publishing_fixtures import START, World, patient_client

pytestmark = pytest.mark.redis
NEXT = shift_day(START, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two released days; the tests flip between them."""
    world = World(tmp_path_factory.mktemp("client"))
    for ds in (START, NEXT):
        world.grow(ds, change=1.0, prune=0.0)
        world.publish(ds)
    yield world
    world.close()


@pytest.fixture
def url(world):
    """The server's URL, with the second day current again after the test before."""
    world.step("release", NEXT)
    return ensure_redis(world.settings)


def pool_of(world: World, upstream: str = "ctr"):
    pool = world.pools[upstream, "user"]
    return pool.ids.tolist(), pool.vectors.astype(np.float16).astype(np.float32)


def flip_back(world: World, url: str) -> None:
    Releases(world.root, open_store(url)).roll_back()


@pytest.mark.parametrize("upstream", ["ctr", "cvr"])
def test_reads_what_was_published_in_the_order_asked(world, url, upstream):
    ids, vectors = pool_of(world, upstream)
    client = patient_client(url, upstream=upstream)
    found_vectors, found = client.get_users([ids[3], "nobody", ids[0], ids[3]])
    assert found.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(found_vectors, [vectors[3], np.zeros(16), vectors[0], vectors[3]])
    assert client.get_users([])[0].shape == (0, 16)
    client.close()


def test_pins_are_read_in_the_order_asked_at_length_one(world, url):
    pool = world.pools["ctr", "pin"]
    ids = pool.ids.tolist()
    client = patient_client(url, home=world.root)
    vectors, found = client.get_pins([ids[2], "nobody", ids[0]])
    assert found.tolist() == [True, False, True]
    expected = pool.vectors[[2, 0]] / np.linalg.norm(pool.vectors[[2, 0]], axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[[0, 2]], expected, atol=2e-3)  # stored as float16
    assert not vectors[1].any()
    assert client.get_pins([])[0].shape == (0, 16)
    client.close()


def test_asyncio_reads_the_same(world, url):
    ids, vectors = pool_of(world)

    async def read():
        client = patient_client(url, cache_users=10)
        results = await asyncio.gather(*(client.aget_users(ids[i::4]) for i in range(4)))
        await client.aclose()
        return results

    for i, (found_vectors, found) in enumerate(asyncio.run(read())):
        assert found.all()
        np.testing.assert_array_equal(found_vectors, vectors[i::4])


def test_a_flip_is_noticed_at_the_next_read_also_by_a_full_cache(world, url):
    ids, vectors = pool_of(world)
    client = patient_client(url, cache_users=10_000)
    for _ in range(2):
        np.testing.assert_array_equal(client.get_users(ids)[0], vectors)
    assert client.counters.cache_hits == len(ids)
    flip_back(world, url)
    assert not np.array_equal(client.get_users(ids)[0], vectors)
    assert client.counters.flips == 1
    assert client.release.ds == START


def test_the_cache_keeps_no_more_than_it_may(world, url):
    ids, vectors = pool_of(world)
    client = patient_client(url, cache_users=10)
    client.get_users(ids[:30])
    values, found = client.get_users(ids[:30])
    assert client.counters.cache_hits == 10
    assert found.all()
    np.testing.assert_array_equal(values, vectors[:30])


def test_a_slow_store_degrades_to_nobody_and_is_counted(world, url):
    ids, vectors = pool_of(world)
    client = FeatureClient(url, timeout_s=0.05)
    client.get_users(ids[:1])
    redis.Redis.from_url(url).client_pause(400, all=True)
    values, found = client.get_users(ids)
    assert (values.shape, found.any(), client.counters.timeouts) == ((len(ids), 16), False, 1)
    redis.Redis.from_url(url, socket_timeout=5).ping()
    # The late answer of the read that was given up must not become the next read's answer.
    values, found = client.get_users(ids)
    assert found.all()
    np.testing.assert_array_equal(values, vectors)


def test_a_search_goes_on_with_the_last_release_while_the_store_is_slow(world, url):
    _, vectors = pool_of(world)
    client = FeatureClient(url, home=world.root, timeout_s=0.05)
    before = client.search(vectors[0], k=5)
    redis.Redis.from_url(url).client_pause(400, all=True)
    during = client.search(vectors[0], k=5)
    redis.Redis.from_url(url, socket_timeout=5).ping()
    np.testing.assert_array_equal(during.ids, before.ids)
    assert client.counters.timeouts == 1


def test_a_slow_store_just_after_a_release_degrades_to_nobody(world, url):
    """The flip is seen, but the new release is not read in time."""

    class Slowed(Connections):
        def mget_with_pointer(self, keys):
            values = super().mget_with_pointer(keys)
            redis.Redis.from_url(url).client_pause(400, all=True)
            return values

    ids, _ = pool_of(world)
    client = patient_client(url)
    client.connections = Slowed(url, timeout_s=0.05, cluster=False)
    assert client.release.ds == NEXT
    flip_back(world, url)
    _, found = client.get_users(ids)
    assert (found.any(), client.counters.timeouts) == (False, 1)
    redis.Redis.from_url(url, socket_timeout=5).ping()


def test_an_answer_that_arrives_after_a_flip_does_not_enter_the_new_cache(world, url):
    """One coroutine reads the old release and is slow; another one sees the flip meanwhile."""
    ids, _ = pool_of(world)
    late = asyncio.Event()

    class Held(Connections):
        held = False

        async def amget_with_pointer(self, keys):
            values = await super().amget_with_pointer(keys)
            if not self.held:
                self.held = True
                await late.wait()
            return values

    async def read():
        client = patient_client(url, cache_users=10_000)
        client.connections = Held(url, timeout_s=5, cluster=False)
        first = asyncio.create_task(client.aget_users(ids[:2]))
        while not client.connections.held:
            await asyncio.sleep(0.001)
        flip_back(world, url)
        await client.aget_users(ids[2:4])
        late.set()
        newer, _ = await first
        after, _ = await client.aget_users(ids[:4])
        await client.aclose()
        return newer, after

    newer, after = asyncio.run(read())
    older, _ = patient_client(url).get_users(ids[:4])
    assert not np.array_equal(newer, older[:2])
    np.testing.assert_array_equal(after, older)


def test_a_user_is_searched_in_the_index_of_the_release_that_knew_the_user(world, url):
    class Overtaken(Connections):
        def mget_with_pointer(self, keys):
            values = super().mget_with_pointer(keys)
            flip_back(world, url)
            return values

    ids, vectors = pool_of(world)
    expected = patient_client(url, home=world.root).search(vectors[0], k=5)
    client = patient_client(url, home=world.root)
    client.connections = Overtaken(url, timeout_s=5, cluster=False)
    found = client.search(user_id=ids[0], k=5)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_store_that_is_not_there_is_a_typed_error():
    with pytest.raises(StoreError, match="cannot be read"):
        FeatureClient("redis://127.0.0.1:1").get_users(["u"])


def test_nothing_released_yet_is_a_typed_error(url):
    with pytest.raises(StoreError, match="nothing is published"):
        FeatureClient(f"{url[:-1]}1").get_users(["u"])


def test_search_by_vector_and_by_user_agree(world, url):
    ids, vectors = pool_of(world)
    client = patient_client(url, home=world.root)
    by_user = client.search(user_id=ids[0], k=5)
    by_vector = client.search(vectors[0], k=5)
    np.testing.assert_array_equal(by_user.ids, by_vector.ids)
    pins = world.pools["ctr", "pin"]
    unit = pins.vectors / np.linalg.norm(pins.vectors, axis=1, keepdims=True)
    best = pins.ids[np.argsort(-(unit @ vectors[0]))[:5]].tolist()
    assert by_user.ids[0].tolist() == best


def test_search_follows_the_release(world, url):
    client = patient_client(url, home=world.root)
    first = client.index
    assert client.index is first
    flip_back(world, url)
    assert client.index is not first
    assert client.index.manifest.ds == START


def test_a_search_that_makes_no_sense_is_refused(world, url):
    client = patient_client(url, home=world.root)
    with pytest.raises(InputError, match="needs a vector or a user"):
        client.search()
    with pytest.raises(InputError, match="needs a vector or a user"):
        client.search(np.ones(16), user_id="user1")
    with pytest.raises(InputError, match="not in release"):
        client.search(user_id="nobody")
    with pytest.raises(InputError, match="given no home"):
        patient_client(url).search(np.ones(16))


def test_acl_user_and_password(world, url):
    admin = redis.Redis.from_url(url)
    admin.acl_setuser(
        "ranker",
        enabled=True,
        passwords=["+reading"],
        keys=["derm:*"],
        commands=["+get", "+mget", "+client", "+hello"],
    )
    ids, vectors = pool_of(world)
    port = admin.connection_pool.connection_kwargs["port"]
    as_ranker = f"redis://ranker:reading@127.0.0.1:{port}/0"
    np.testing.assert_array_equal(patient_client(as_ranker).get_users(ids)[0], vectors)
    world.redis_url = as_ranker
    with pytest.raises(StoreError, match="may not do this") as error:
        world.step("publish", NEXT, "ctr")
    world.redis_url = ""
    assert "ACL" in error.value.hint
    assert "reading" not in str(error.value)


def test_the_file_store_is_read_by_the_same_client(tmp_path):
    """People without Redis: publish, release, roll back and read, in one folder."""
    url = f"file://{tmp_path}/online"
    world = World(tmp_path / "home", users=100, pins=10, redis_url=url)
    client = patient_client(url, home=world.root)
    for day in range(4):
        ds = shift_day(START, day)
        world.grow(ds)
        done = world.publish(ds)
        assert world.step("audit", ds).metrics["audited"] == 1
        ids, vectors = pool_of(world)
        np.testing.assert_array_equal(client.get_users(ids)[0], vectors)
        assert client.get_users(["nobody"])[1].tolist() == [False]
    assert done["publish ctr"].metrics["full"] == 0
    flip_back(world, url)
    assert client.search(user_id="user1").ids.shape == (1, 10)
    assert client.release.ds == shift_day(START, 2)

    async def read():
        found = (await client.aget_users(["user1", "nobody"]))[1]
        await client.aclose()
        return found

    assert asyncio.run(read()).tolist() == [True, False]
    client.close()
