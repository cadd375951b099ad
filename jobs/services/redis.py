"""The embedded Redis: a real server below the home, for machines that have no Redis of their own.

It listens on loopback only, behind a generated password, and outlives the command that started it:
`ensure_redis` finds it again, or starts it again with the data of its last save, on the port it had
before: a ranker's URL stays true. Saves are made
when asked (`persist`, after each release, and on `stop_redis`): the periodic snapshots of Redis'
default configuration would fork in the middle of a bulk load.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import redis

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.errors import StoreError
from jobs.paths import HomePaths
from jobs.services import store_record
from jobs.services.private import append_private, make_private, write_private
from jobs.services.redis_program import check_not_older, server_program, version_of
from jobs.settings import Settings

_START_TIMEOUT_S = 60.0
_SAVE_TIMEOUT_S = 600.0


def ensure_redis(settings: Settings) -> str:
    """The URL of a running online store: the configured one, or the embedded server.

    Safe when several processes call it at once: one starts the server, the others find it.

    Raises:
        InputError: the home publishes to another store.
        StoreError: no server program is installed, or it does not start.
    """
    store_record.check(settings)
    if url := settings.redis_url.get_secret_value():
        return url
    folder = _folder(settings.home)
    # The saved vectors are as private as the password beside them.
    make_private(folder)
    if running := _running(folder):
        return running
    with _lock(folder):
        return _running(folder) or _start(folder)


def embedded_url(home: Path) -> str | None:
    """The URL of the embedded server when it runs, None otherwise. Starts nothing."""
    return _running(_folder(home))


def describe(settings: Settings) -> str:
    """Which online store is used, for people; without secrets. Starts nothing."""
    if settings.redis_url.get_secret_value():
        return store_record.name(settings)
    folder = _folder(settings.home)
    state = _state(folder)
    server = f"embedded redis-server {state.get('version', '')}".strip()
    if not _is_alive(state):
        return f"{server}, not running"
    return f"{server} at 127.0.0.1:{state['port']} ({state['program']})"


def died(home: Path) -> bool:
    """Whether the embedded server was started, not stopped in order, and does not answer."""
    folder = _folder(home)
    return bool(_state(folder).get("pid")) and _running(folder) is None


def stop_redis(home: Path) -> bool:
    """Save and stop the embedded server; False when none was running.

    Raises:
        StoreError: it could not save, and therefore still runs.
    """
    folder = _folder(home)
    if not folder.exists():
        return False
    with _lock(folder):
        url = _running(folder)
        if url is None:
            return False
        pid = _state(folder)["pid"]
        with _client(url) as client:
            try:
                client.shutdown(save=True)
            except redis.RedisError as error:
                raise _cannot_save(folder, error) from error
        _await_exit(int(pid))
        _record(folder, {**_state(folder), "pid": 0})
    return True


def persist(settings: Settings) -> None:
    """Save the embedded server's data; a configured server persists by its own rules.

    Raises:
        StoreError: the save failed.
    """
    if settings.redis_url.get_secret_value():
        return
    folder = _folder(settings.home)
    with _client(ensure_redis(settings)) as client:
        deadline = time.monotonic() + _SAVE_TIMEOUT_S
        try:
            # A save that began earlier does not hold what was written since: wait, then save.
            _await_save(client, deadline)
            client.bgsave()
            _await_save(client, deadline)
            info = client.info("persistence")
        except redis.RedisError as error:
            raise _cannot_save(folder, error) from error
    if info["rdb_last_bgsave_status"] != "ok":
        raise _cannot_save(folder, info["rdb_last_bgsave_status"])


def _folder(home: Path) -> Path:
    return HomePaths(home).redis.absolute()


def _state(folder: Path) -> dict[str, Any]:
    """What the last start recorded: port, pid (0: stopped), version and program."""
    try:
        state: dict[str, Any] = json.loads((folder / "server.json").read_text())
    except (OSError, json.JSONDecodeError):
        return {}
    return state


def _record(folder: Path, state: dict[str, Any]) -> None:
    write_atomic(folder / "server.json", json.dumps(state) + "\n")


def _is_alive(state: dict[str, Any]) -> bool:
    """Whether the recorded process still is the server: nobody else may be told the password."""
    try:
        return bool(state.get("pid")) and psutil.Process(state["pid"]).name() == "redis-server"
    except psutil.Error:
        return False


def _running(folder: Path) -> str | None:
    """The URL of the server that answers on the recorded port, waiting while it loads."""
    state = _state(folder)
    password = folder / "password"
    if not _is_alive(state) or not password.exists():
        return None
    url = f"redis://:{password.read_text().strip()}@127.0.0.1:{state['port']}/0"
    deadline = time.monotonic() + _START_TIMEOUT_S
    with _client(url) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except redis.exceptions.BusyLoadingError:
                time.sleep(0.1)
            except redis.RedisError:
                return None
            else:
                return url
    return None


def _start(folder: Path) -> str:
    """Start the server on its port and wait until it answers. The lock is held."""
    password = folder / "password"
    if not password.exists():
        write_private(password, secrets.token_urlsafe(32) + "\n")
    before, program = _state(folder), server_program()
    version = version_of(program)
    check_not_older(folder / "users.rdb", version, before)
    drop_unfinished_saves(folder)
    port = _port(before.get("port", 0))
    config = folder / "redis.conf"
    write_private(config, _config(folder, port, password.read_text().strip()))
    with append_private(folder / "server.log") as log:
        process = subprocess.Popen(
            [str(program), str(config)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started = {"port": port, "pid": process.pid, "version": version, "program": str(program)}
    _record(folder, started)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if url := _running(folder):
            # The server is meant to outlive this process: say so, or Popen warns about a child.
            process.returncode = 0
            return url
        time.sleep(0.02)
    _record(folder, {**started, "pid": 0})
    raise StoreError(
        "the embedded redis-server did not start",
        where=str(folder / "server.log"),
        expected=f"an answer on 127.0.0.1:{port} within {_START_TIMEOUT_S:.0f} s",
        found=f"exit code {process.poll()}",
        hint="the log's last lines say why",
    )


def drop_unfinished_saves(folder: Path) -> None:
    """Remove what a server that was killed while it saved has left; none may be saving now."""
    for draft in folder.glob("temp-*.rdb"):
        draft.unlink(missing_ok=True)


def _config(folder: Path, port: int, password: str) -> str:
    return "\n".join(
        (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder}"',
            "dbfilename users.rdb",
            'save ""',
            "appendonly no",
            # Vectors do not compress, and checksums of the file are kept.
            "rdbcompression no",
            "daemonize no",
            "",
        )
    )


def _port(wanted: int) -> int:
    """The port it had before, unless somebody else has it now; 0 takes any that is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _port(0)
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_connect_timeout=2, retry=None)


def _await_exit(pid: int) -> None:
    deadline = time.monotonic() + _SAVE_TIMEOUT_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def _await_save(client: redis.Redis, deadline: float) -> None:
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        if time.monotonic() > deadline:
            raise redis.TimeoutError(f"no end of the save after {_SAVE_TIMEOUT_S:.0f} s")
        time.sleep(0.01)


def _cannot_save(folder: Path, found: object) -> StoreError:
    return StoreError(
        "the embedded redis-server could not save its data",
        where=str(folder),
        found=str(found),
        hint=f"is the disk full? the reason is in {folder / 'server.log'}",
    )
