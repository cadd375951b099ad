"""One suite for every online store: a new store is one more line in `STORES`."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis

from feature_store.online.store import (
    OnlineStore,
    SlotState,
    open_store,
    put_slot_state,
    slot_state,
)
from feature_store.online.stores.memory import MemoryStore
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings

STORES = ("memory", "file", pytest.param("redis", marks=pytest.mark.redis))
A, B = "derm:ctr:00000000:a:", "derm:ctr:00000000:b:"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    home = tmp_path_factory.mktemp("redis")
    yield ensure_redis(Settings(home=home))
    stop_redis(home)


@pytest.fixture(params=STORES)
def store(request, tmp_path) -> OnlineStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "file":
        return open_store(f"file://{tmp_path}")
    store = open_store(request.getfixturevalue("redis_url"))
    store.wipe(A)
    store.wipe(B)
    return store


def put(store: OnlineStore, prefix: str, rows: dict[str, bytes], remove: tuple[str, ...] = ()):
    ids = pa.array(list(rows), pa.string())
    with store.writer(prefix) as writer:
        if rows:
            writer.write(ids, np.array([list(v) for v in rows.values()], np.uint8))
        writer.remove(pa.array(remove, pa.string()))


def test_reads_its_writes_in_order_and_none_for_the_unknown(store):
    put(store, A, {"u1": b"one", "üser": b"two"})
    store.seal(A)
    assert store.read(A, ["üser", "nobody", "u1"]) == [b"two", None, b"one"]
    assert store.read(A, []) == []


def test_an_empty_slot_knows_nobody(store):
    assert store.read(A, ["u1"]) == [None]
    assert store.sample(A, 10) == []


def test_later_writes_win_and_the_rest_stays(store):
    put(store, A, {"u1": b"one", "u2": b"two"})
    store.seal(A)
    put(store, A, {"u1": b"ONE", "u3": b"tre"})
    store.seal(A)
    assert store.read(A, ["u1", "u2", "u3"]) == [b"ONE", b"two", b"tre"]


def test_removed_ids_are_gone_and_unknown_ones_do_no_harm(store):
    put(store, A, {"u1": b"one", "u2": b"two"})
    store.seal(A)
    put(store, A, {}, remove=("u1", "never"))
    store.seal(A)
    assert store.read(A, ["u1", "u2"]) == [None, b"two"]
    assert store.sample(A, 10) == ["u2"]


def test_after_a_purge_no_file_of_the_store_names_who_was_removed(store, request, tmp_path):
    folder = tmp_path
    if "redis_url" in request.fixturenames:
        client = redis.Redis.from_url(request.getfixturevalue("redis_url"))
        folder = Path(client.config_get("dir")["dir"])
        client.config_set("save", "3600 1")
        client.config_set("appendonly", "yes")
    put(store, A, {"forgotten-user": b"one", "u2": b"two"})
    store.seal(A)
    store.purge()
    put(store, A, {}, remove=("forgotten-user",))
    store.seal(A)
    store.purge()
    files = [f.read_bytes() for f in folder.rglob("*") if f.is_file()]
    assert not any(b"forgotten-user" in content for content in files)
    if not isinstance(store, MemoryStore):
        assert any(b"u2" in content for content in files)


def test_who_is_erased_does_not_come_back_with_a_draft_of_a_killed_publish(store):
    put(store, A, {"u1": b"one", "u2": b"two"})
    store.seal(A)
    put(store, A, {"u1": b"ONE", "new": b"new"}, remove=("u2",))  # and it dies before `seal`
    assert store.slots() == (A,)
    store.erase(A, pa.array(["u1", "new", "never"]))
    assert store.read(A, ["u1", "new"]) == [None, None]
    store.seal(A)
    assert store.read(A, ["u1", "new", "u2"]) == [None, None, None]
    assert store.purge() == ()


def test_writing_the_same_bucket_twice_changes_nothing(store):
    for _ in range(2):
        put(store, A, {"u1": b"one", "u2": b"two"}, remove=("old",))
    store.seal(A)
    store.seal(A)
    assert store.read(A, ["u1", "u2"]) == [b"one", b"two"]


def test_slots_are_apart(store):
    put(store, A, {"u1": b"one"})
    put(store, B, {"u1": b"two"})
    store.seal(A)
    store.seal(B)
    store.wipe(A)
    assert store.read(A, ["u1"]) == [None]
    assert store.read(B, ["u1"]) == [b"two"]


def test_many_rows_of_many_id_lengths(store):
    rows = {f"user{i}": bytes([i % 256, i // 256, 7]) for i in range(5000)}
    put(store, A, rows)
    store.seal(A)
    ids = list(rows)[::7]
    assert store.read(A, ids) == [rows[i] for i in ids]
    assert set(store.sample(A, 10**6)) == set(rows)
    assert len(store.sample(A, 100)) == 100


def test_metadata_is_read_back_replaced_and_deleted(store):
    state = SlotState(
        state="writing",
        ds="2025-03-01",
        pool_digest="d",
        space_id="s",
        dtype="float16",
        dim=4,
        buckets=2,
        users=3,
    )
    put_slot_state(store, A, state)
    assert slot_state(store, A) == state
    put_slot_state(store, A, state.model_copy(update={"state": "complete"}))
    assert slot_state(store, A).state == "complete"
    store.delete("derm:slot:ctr:00000000:a")
    store.delete("derm:slot:ctr:00000000:a")
    assert slot_state(store, A) is None


def test_no_secret_is_in_the_location(store):
    assert "@" not in store.location
    assert store.location.split()[0] in ("memory", "files", "redis")
