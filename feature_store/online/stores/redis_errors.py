"""What redis-py raises, as a StoreError that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from feature_store.contracts.errors import StoreError


@contextmanager
def typed_errors(location: str) -> Iterator[None]:
    """Turn what redis-py raises into a StoreError that says what to do."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise store_error(error, location) from error


_REMEDIES: tuple[tuple[type[Exception], str, str], ...] = (
    (
        redis.exceptions.OutOfMemoryError,
        "Redis is out of memory",
        "raise maxmemory (two slots need twice the pool), then run the step again",
    ),
    (
        redis.exceptions.ReadOnlyError,
        "this Redis is a read-only replica",
        "point DERM_REDIS_URL at the primary, then run the step again",
    ),
    (
        redis.exceptions.AuthenticationError,
        "Redis refused the user or the password",
        "check the user and the password in DERM_REDIS_URL",
    ),
    (
        redis.exceptions.NoPermissionError,
        "the Redis user may not do this",
        "the ACL needs ~derm:* +@read +@write +@connection +info +cluster|slots",
    ),
    (
        redis.exceptions.BusyLoadingError,
        "Redis is still loading its data",
        "run the step again in a minute; what was published is safe",
    ),
    (
        redis.exceptions.TimeoutError,
        "Redis does not answer in time",
        "look at its load (redis-cli --latency), then run the step again: it continues",
    ),
    (
        redis.exceptions.ConnectionError,
        "the connection to Redis failed",
        "start or repair Redis, then run the step again: it continues where it stopped",
    ),
)


def store_error(error: Exception, location: str) -> StoreError:
    """The typed error for what redis-py raised."""
    for kind, what, hint in _REMEDIES:
        if isinstance(error, kind):
            return StoreError(what, where=location, found=str(error), hint=hint)
    return StoreError(
        "Redis refused a command", where=location, found=str(error), hint="see the server's log"
    )
