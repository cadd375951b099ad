"""The embedded Redis: private, found again, restarted with its data, started once."""

import concurrent.futures
import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path

import pytest
import redis

from feature_store.contracts.errors import StoreError
from jobs.services import redis as service
from jobs.services.redis import embedded_url, ensure_redis, persist, stop_redis
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


def wait_until_down(home: Path) -> None:
    deadline = time.monotonic() + 10
    while embedded_url(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert embedded_url(home) is None
