"""Commands assembled by NumPy equal those that redis-py packs one by one."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.cluster import key_slot
from redis.connection import Connection

from feature_store.online.stores import resp
from feature_store.online.stores.cluster import slots_of

PREFIX = b"derm:ctr:00000000:a:"
ids_strategy = st.lists(st.text(min_size=0, max_size=12), min_size=0, max_size=40, unique=True)
packer = Connection()


def values_of(ids: list[str]) -> np.ndarray:
    return np.random.default_rng(len(ids)).integers(0, 256, (len(ids), 9), np.uint8)


def arguments(payload: resp.Payload) -> list[list[bytes]]:
    """The commands of a payload, parsed strictly."""
    data, at, commands = b"".join(payload.chunks), 0, []

    def header(kind: bytes) -> int:
        nonlocal at
        assert data[at : at + 1] == kind
        end = data.index(b"\r\n", at)
        number, at = int(data[at + 1 : end]), end + 2
        return number

    while at < len(data):
        command = []
        for _ in range(header(b"*")):
            length = header(b"$")
            command.append(data[at : at + length])
            assert data[at + length : at + length + 2] == b"\r\n"
            at += length + 2
        commands.append(command)
    assert len(commands) == payload.replies
    return commands


@settings(max_examples=60, deadline=None)
@given(ids_strategy, st.integers(1, 7))
def test_mset_holds_every_pair_once_in_batches(ids, batch):
    values = values_of(ids)
    commands = arguments(resp.mset(PREFIX, pa.array(ids, pa.string()), values, batch))
    assert all(c[0] == b"MSET" and len(c) <= 2 * batch + 1 for c in commands)
    pairs = {c[i]: c[i + 1] for c in commands for i in range(1, len(c), 2)}
    assert pairs == {PREFIX + i.encode(): v.tobytes() for i, v in zip(ids, values, strict=True)}


@settings(max_examples=60, deadline=None)
@given(ids_strategy)
def test_set_and_unlink_equal_what_redis_py_packs(ids):
    values, keys = values_of(ids), [PREFIX + i.encode() for i in ids]
    expire = np.arange(len(ids)) + 2_000_000_000
    array = pa.array(ids, pa.string())
    rows = list(zip(keys, values, expire.tolist(), strict=True))
    packed = {b"".join(packer.pack_command("SET", k, v.tobytes(), "EXAT", t)) for k, v, t in rows}
    assert_same(resp.set_each(PREFIX, array, values, expire), packed)
    packed = {b"".join(packer.pack_command("SET", k, v.tobytes())) for k, v, _ in rows}
    assert_same(resp.set_each(PREFIX, array, values, None), packed)
    assert_same(
        resp.unlink(PREFIX, array, 1), {b"".join(packer.pack_command("UNLINK", k)) for k in keys}
    )


def assert_same(payload: resp.Payload, packed: set[bytes]) -> None:
    commands = {b"".join(packer.pack_command(*c)) for c in arguments(payload)}
    assert commands == packed
    assert payload.size == sum(map(len, packed))


def test_a_slice_of_ids_sends_that_slice():
    ids = pa.array([f"u{i}" for i in range(20)], pa.string())
    commands = arguments(resp.unlink(b"p:", ids[5:9], 100))
    assert commands == [[b"UNLINK", b"p:u5", b"p:u6", b"p:u7", b"p:u8"]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="ab{}ü", max_size=9), max_size=20))
def test_cluster_slots_equal_redis_py(ids):
    found = slots_of(PREFIX, pa.array(ids, pa.string()))
    assert found.tolist() == [key_slot(PREFIX + i.encode()) for i in ids]
