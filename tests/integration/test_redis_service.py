"""The embedded Redis: private, found again, restarted with its data, started once."""

import concurrent.futures
import multiprocessing
import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest
import redis

from feature_store.contracts.errors import StoreError
from jobs.services import redis as service
from jobs.services.redis import describe, embedded_url, ensure_redis, persist, stop_redis
from jobs.services.redis_program import server_program, version_of
from jobs.settings import Settings

pytestmark = pytest.mark.redis


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    stop_redis(tmp_path)


def start(home: Path) -> str:
    return ensure_redis(Settings(home=home))


def test_data_survives_a_stop_and_the_server_is_found_again(home):
    url = start(home)
    assert start(home) == url == embedded_url(home)
    redis.Redis.from_url(url).set("key", "value")
    assert stop_redis(home)
    assert embedded_url(home) is None
    assert not stop_redis(home)
    assert redis.Redis.from_url(start(home)).get("key") == b"value"


def test_a_crash_loses_only_what_came_after_the_last_save(home):
    settings = Settings(home=home)
    client = redis.Redis.from_url(start(home))
    client.set("saved", "1")
    persist(settings)
    client.set("later", "1")
    os.kill(service._state(home / "services" / "redis")["pid"], signal.SIGKILL)
    wait_until_down(home)
    client = redis.Redis.from_url(start(home))
    assert client.get("saved") == b"1"
    assert client.get("later") is None


def test_only_loopback_and_only_with_the_password(home):
    url = start(home)
    client = redis.Redis.from_url(url)
    assert client.config_get("bind")["bind"] == "127.0.0.1"
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=client.connection_pool.connection_kwargs["port"]).ping()


def test_the_password_is_private_and_in_no_log(home, caplog):
    url = start(home)
    folder = home / "services" / "redis"
    password = (folder / "password").read_text().strip()
    assert len(password) >= 32
    assert password in url
    for name in ("password", "redis.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert password not in (folder / "server.log").read_text() + caplog.text
    command = Path(f"/proc/{service._state(folder)['pid']}/cmdline").read_text()
    assert password not in command


def test_processes_that_start_it_at_once_share_one_server(home):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(3, context) as pool:
        urls = set(pool.map(start, [home] * 6))
    assert len(urls) == 1
    # The processes that started it are gone, and it still answers.
    assert redis.Redis.from_url(urls.pop()).ping()


def test_a_configured_server_is_used_and_left_alone(home):
    settings = Settings(home=home, redis_url="redis://somewhere:1")
    assert ensure_redis(settings) == "redis://somewhere:1"
    persist(settings)
    assert not (home / "services").exists()


def test_a_server_that_cannot_start_says_where_to_look(home):
    start(home)
    stop_redis(home)
    (home / "services" / "redis" / "users.rdb").write_bytes(b"not a dump")
    with pytest.raises(StoreError, match="did not start") as error:
        start(home)
    assert error.value.where.endswith("server.log")


def test_a_ranker_that_knows_the_port_finds_it_after_a_restart(home):
    url = start(home)
    stop_redis(home)
    assert start(home) == url
    stop_redis(home)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
        other.listen()
        assert embedded_url(home) is None
        assert start(home) != url


def newer_server(folder: Path) -> Path:
    """A `redis-server` that calls itself the newest, and is the real one otherwise."""
    program = folder / "redis-server"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=99.1.0 sha=0" && exit\n'
        f'exec {server_program()} "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_the_newest_server_of_the_machine_runs_and_status_says_which(home, tmp_path, monkeypatch):
    settings = Settings(home=home)
    bundled = version_of(server_program())
    assert describe(settings) == "embedded redis-server, not running"
    start(home)
    assert f"redis-server {bundled} at 127.0.0.1:" in describe(settings)
    stop_redis(home)
    (tmp_path / "bin").mkdir()
    newer = newer_server(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{newer.parent}")
    redis.Redis.from_url(start(home)).set("key", "value")
    assert "redis-server 99.1.0" in describe(settings)
    assert str(newer) in describe(settings)
    stop_redis(home)
    assert describe(settings) == "embedded redis-server 99.1.0, not running"
    newer.unlink()
    with pytest.raises(StoreError, match="older than the one that saved"):
        start(home)


def test_what_a_killed_save_has_left_is_removed(home):
    start(home)
    stop_redis(home)
    draft = home / "services" / "redis" / "temp-4711.rdb"
    draft.write_bytes(b"REDIS")
    start(home)
    assert not draft.exists()


def wait_until_down(home: Path) -> None:
    deadline = time.monotonic() + 10
    while embedded_url(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert embedded_url(home) is None
