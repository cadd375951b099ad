"""Shards as processes: versions go live together, and nothing is ever mixed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from feature_store.client.follower import Follower
from feature_store.client.tables import TableClient
from feature_store.contracts.errors import InputError, StoreError
from feature_store.tables.address import Address
from feature_store.tables.directory import shard_of
from feature_store.tables.fetching import Fetched
from feature_store.tables.server import ShardServer
from feature_store.tables.wire import (
    Code,
    Frame,
    FrameReader,
    Kind,
    LookupBody,
    RefusalBody,
    ShardRefused,
    VersionMissing,
)
from jobs.services import processes, tables
from jobs.settings import Settings
from tests.table_shards import SHARDS, shards_in_threads
from tests.table_versions import IDS, default_of_version, rows_of_version, write_small

ROOT = Path(__file__).parents[2]
_TOKEN = "only those who publish know it"  # noqa: S105 - of this test alone


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(home=tmp_path / "home")
    root = settings.paths.tables
    for number in (1, 2, 3):
        write_small(root, f"v{number}", number, tables=("users", "pins"), shards=SHARDS)
    yield settings
    processes.stop(settings.home)


@pytest.fixture
def served(settings: Settings) -> Iterator[Settings]:
    """Settings of shards that run."""
    with shards_in_threads(settings):
        yield settings


def _client(settings: Settings, timeout_s: float = 5.0) -> TableClient:
    return TableClient(tables.addresses(settings, SHARDS), timeout_s=timeout_s)


def _publish(settings: Settings, version: str) -> tables.Served:
    client = _client(settings)
    try:
        return tables.publish(settings.paths.tables, client, version, within_s=30)
    finally:
        client.close()


def test_rows_of_what_is_live(served: Settings) -> None:
    assert _publish(served, "v1").silent == ()
    client = _client(served)
    assert client.live() == "v1"
    version = client.describe("v1")
    ids = np.concatenate([IDS[:700], IDS[:700], [10**15]]).astype(np.int64)
    found = client.fetch(version, {"users": ids, "pins": IDS[5:8]})
    assert (found.values["users"][:-1] == rows_of_version(1, ids[:-1])).all()
    assert (found.values["users"][-1] == default_of_version(1)).all()
    assert found.known["users"].tolist() == [True] * 1400 + [False]
    assert (found.values["pins"] == rows_of_version(1, IDS[5:8])).all()
    assert (found.defaulted, client.counts.ids, client.counts.distinct) == (0, 1404, 704)
    with pytest.raises(InputError, match="no table abacus"):
        client.fetch(version, {"abacus": ids})
    client.close()


def test_a_publication_under_load_mixes_nothing(served: Settings) -> None:
    """A ranker asks without pause while versions change; its weights say which version they are."""
    _publish(served, "v1")
    client = _client(served)
    follower = Follower(client, load=lambda version: int(version[1:]))
    seen: list[int] = []
    stop = threading.Event()

    def rank() -> None:
        ids = {"users": IDS[:33], "pins": IDS[:9]}

        def finish(model: int, early: int, fetched: Fetched) -> int:
            assert (fetched.values["users"] == rows_of_version(model, IDS[:33])).all()
            assert (fetched.values["pins"] == rows_of_version(model, IDS[:9])).all()
            assert early == model
            return model

        while not stop.is_set():
            seen.append(follower.rank(ids, finish, meanwhile=lambda model: model))
            if len(seen) % 20 == 0:
                follower.refresh()

    thread = threading.Thread(target=rank)
    thread.start()
    for version in ("v2", "v3", "v2", "v1"):
        _publish(served, version)
        at = len(seen)
        end = time.monotonic() + 20
        while len(seen) < at + 60 and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
    stop.set()
    thread.join(20)
    changes = [a for a, b in zip([0, *seen], seen, strict=False) if a != b]
    assert seen[-1] == 1
    assert len(changes) == 5, f"versions in the order that requests saw them: {changes}"
    assert client.counts.defaulted == 0
    client.close()


def test_a_version_that_was_unloaded_is_missing_and_never_made_up(served: Settings) -> None:
    _publish(served, "v1")
    client = _client(served)
    pinned = client.describe("v1")
    _publish(served, "v2")
    # Kept for requests under way and for a rollback ...
    assert client.fetch(pinned, {"users": IDS[:5]}).version == "v1"
    _publish(served, "v3")
    # ... and gone with the next.
    with pytest.raises(VersionMissing, match="v1 is gone"):
        client.fetch(pinned, {"users": IDS[:5]})
    assert client.counts.versions_missing == 1
    client.close()


def test_a_rollback_is_one_round(served: Settings) -> None:
    _publish(served, "v1")
    _publish(served, "v2")
    client = _client(served)
    back = tables.roll_back(served.paths.tables, client, within_s=20, said=lambda _: None)
    assert (back.pointer.version, back.pointer.previous) == ("v1", "v2")
    assert client.live() == "v1"
    client.close()


def test_a_damaged_version_is_not_published(served: Settings) -> None:
    _publish(served, "v1")
    path = served.paths.tables / "v2" / "pins" / "00001.0.rows"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"refused by shard 1(.|\n)*table pins.*offset 2048"):
        _publish(served, "v2")
    client = _client(served)
    assert client.live() == "v1"
    states = [s["versions"]["v2"]["state"] for s in client.statuses() if isinstance(s, dict)]
    assert states == ["gone", "gone"]
    client.close()


def test_what_does_not_come_in_time_is_a_default_row_and_counted(settings: Settings) -> None:
    """One shard is a process that is stopped: it lives, and does not answer."""
    tables.start_shards(settings, SHARDS)
    _publish(settings, "v2")
    client = _client(settings, timeout_s=0.2)
    version = client.describe("v2")
    client.fetch(version, {"users": IDS[:50]})
    victim = next(p for p in processes.marked(settings.home.absolute()) if "1" in p.cmdline()[-3])
    victim.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    found = client.fetch(version, {"users": IDS[:50]})
    assert time.monotonic() - started < 2
    late = shard_of(IDS[:50], SHARDS) == 1
    assert (found.values["users"][~late] == rows_of_version(2, IDS[:50][~late])).all()
    assert (found.values["users"][late] == default_of_version(2)).all()
    assert found.defaulted == client.counts.defaulted == late.sum()
    assert client.counts.timeouts == 1
    victim.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    # Its late answer is nobody's.
    found = client.fetch(version, {"users": IDS[50:90]})
    assert (found.values["users"] == rows_of_version(2, IDS[50:90])).all()
    victim.kill()
    psutil.wait_procs([victim])
    found = client.fetch(version, {"users": IDS[:50]})
    assert (found.values["users"][late] == default_of_version(2)).all()
    assert client.counts.lost > 0
    tables.start_shards(settings, SHARDS)
    _wait(lambda: client.fetch(version, {"users": IDS[:50]}).defaulted == 0)
    client.close()


def _wait(done, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if done():
                return
        except StoreError:
            pass
        time.sleep(0.05)
    pytest.fail("it did not come to that")


def test_a_flood_is_refused_in_part(served: Settings) -> None:
    _publish(served, "v1")
    mine = IDS[shard_of(IDS, SHARDS) == 0][:4]
    body, flood = LookupBody("v1", "users", mine).pack(), 3000
    link = tables.addresses(served, SHARDS)[0].connect(20)
    link.sendall(b"".join(Frame(Kind.LOOKUP, 0, n, body).pack() for n in range(flood)))
    reader, answers = FrameReader(), []
    while len(answers) < flood:
        answers += reader.feed(link.recv(1 << 16))
    link.close()
    refused = [RefusalBody.parse(f.body).code for f in answers if f.kind is Kind.ERROR]
    assert set(refused) == {Code.OVERLOAD}
    assert len(refused) < flood
    assert [f.request for f in answers] == list(range(flood))


def test_a_change_needs_the_token_and_a_look_up_does_not(settings: Settings) -> None:
    address = Address(host="127.0.0.1", port=_free_port())
    root = settings.paths.tables
    write_small(root, "one", 4, shards=1)
    server = ShardServer(root, 0, 1, address, token=_TOKEN)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        stranger, publisher = TableClient([address]), TableClient([address], token=_TOKEN)
        with pytest.raises(ShardRefused, match="FORBIDDEN"):
            tables.publish(root, stranger, "one", within_s=5)
        tables.publish(root, publisher, "one", within_s=20)
        found = stranger.fetch(stranger.describe("one"), {"users": IDS[:3]})
        assert (found.values["users"] == rows_of_version(4, IDS[:3])).all()
        with pytest.raises(InputError, match="cannot listen at its address"):
            ShardServer(root, 0, 1, address)
        stranger.close()
        publisher.close()
    finally:
        server.stop()
        thread.join(20)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_ranker_needs_no_torch() -> None:
    heavy = ("torch", "pyarrow", "pandas", "faiss", "redis", "deltalake")
    found = f"[m for m in {heavy} if m in sys.modules]"
    code = f"import sys, feature_store.client.follower; print({found})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
