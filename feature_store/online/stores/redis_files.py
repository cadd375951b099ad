"""The files of a Redis server: written anew, so that what was removed is in none of them.

A server that is not ours may forbid the commands that ask for it. Then nothing fails: what could
not be done is said, because somebody has to do it there.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

_POLL_S = 0.05
_UNDER_WAY = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
_FORBIDDEN = ("unknown command", "unknown subcommand", "not allowed", "disabled")


def rewrite_files(client: Any) -> Iterator[str]:
    """Rewrite the files of one node; yields what could not be done or asked.

    Raises:
        redis.RedisError: the node failed.
    """
    # One that is under way may have read what is removed by now: wait, then write.
    info = _settled(client)
    if info.get("aof_enabled"):
        yield from _ask(client.bgrewriteaof, "BGREWRITEAOF", "its append-only file")
        _settled(client)
    saves: dict[str, str] = {}
    yield from _ask(lambda: saves.update(client.config_get("save")), "CONFIG GET", _SNAPSHOTS)
    if saves.get("save"):
        yield from _ask(client.bgsave, "BGSAVE", "its snapshot")
        _settled(client)


_SNAPSHOTS = "whether it saves snapshots is not known; one that it has saved"


def _ask(command: Callable[[], object], name: str, what: str) -> Iterator[str]:
    try:
        command()
    except redis.ResponseError as error:
        refused = isinstance(error, redis.exceptions.NoPermissionError)
        if not refused and not any(word in str(error).lower() for word in _FORBIDDEN):
            raise
        yield (
            f"the Redis server refuses {name}: {what} may hold removed rows until it is written "
            "again; let an administrator do it"
        )


def _settled(client: Any) -> dict[str, Any]:
    """Wait while a node writes, or is about to write, one of its files; what it says then."""
    while True:
        info: dict[str, Any] = client.info("persistence")
        if not any(info.get(step) for step in _UNDER_WAY):
            return info
        time.sleep(_POLL_S)
