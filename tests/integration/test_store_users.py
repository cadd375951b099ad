"""A Redis of one's own, with the users that docs/security.md gives: each can do its work."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.contracts.errors import StoreError
from feature_store.online.store import open_store
from jobs.services.redis_program import server_program
from jobs.settings import PROJECT
from jobs.upkeep.unpublish import published, unpublish
from tests.publishing_fixtures import START, World

pytestmark = pytest.mark.redis
GONE, KEPT = "user7", "user8"


def documented() -> dict[str, str]:
    """The ACL of each user of the table."""
    text = (PROJECT / "docs" / "security.md").read_text()
    rows = re.findall(
        r"^\| (publisher|forgetter|reader) .*\| `(~derm[^`]*)` \|$", text, re.MULTILINE
    )
    return {who: acl.replace("\\|", "|") for who, acl in rows}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "redis"
    folder.mkdir()
    users = [f"user {who} on >pw-{who} {acl}" for who, acl in documented().items()]
    users.append("user default off")
    users.append("user admin on >pw-admin ~* +@all")
    (folder / "users.acl").write_text("\n".join(users) + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(server_program()), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--aclfile", str(folder / "users.acl"), "--dir", str(folder)]
    command += ["--save", "3600 1", "--appendonly", "yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(redis.ConnectionError), redis.Redis.from_url(url(port, "admin")) as admin:
                admin.ping()
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def url(port: int, who: str) -> str:
    return f"redis://{who}:pw-{who}@127.0.0.1:{port}/0"


def files(folder: Path) -> bytes:
    return b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file())


def test_the_table_names_three_users() -> None:
    assert set(documented()) == {"publisher", "forgetter", "reader"}


def test_each_documented_user_can_do_its_work(server: int, tmp_path: Path) -> None:
    world = World(tmp_path / "home", redis_url=url(server, "publisher"))
    world.grow(START)
    world.publish(START)
    client = FeatureClient(url(server, "reader"), home=world.root, timeout_s=30)
    assert client.get_users([GONE, KEPT, "nobody"])[1].tolist() == [True, True, False]
    with pytest.raises(StoreError, match="may not do this"):
        open_store(url(server, "reader")).put("derm:current", b"x")

    world.redis_url = url(server, "forgetter")
    ctx = world.context(START, None)
    assert published(ctx, "user", [GONE, "nobody"]) == {GONE}
    online, unproved = unpublish(ctx, "user", pa.array([GONE]), {})
    assert set(online.values()) == {1}
    assert unproved == ()
    assert client.get_users([GONE, KEPT])[1].tolist() == [False, True]
    kept = files(tmp_path / "redis")
    assert GONE.encode() + b"\r" not in kept
    assert GONE.encode() + b"@" not in kept
    assert KEPT.encode() in kept


def test_where_the_server_forbids_it_the_user_goes_and_what_is_unproved_is_said(
    server: int, tmp_path: Path
) -> None:
    world = World(tmp_path / "home", redis_url=url(server, "publisher"))
    world.grow(START)
    world.publish(START)
    online, unproved = unpublish(world.context(START, None), "user", pa.array([GONE]), {})
    assert set(online.values()) == {1}
    assert [line.partition(":")[0] for line in unproved] == [
        "the Redis server refuses BGREWRITEAOF",
        "the Redis server refuses CONFIG GET",
    ]
    assert published(world.context(START, None), "user", [GONE]) == set()
