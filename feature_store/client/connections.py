"""How a client reaches the online store: Redis, a Redis Cluster, or files; blocking and asyncio."""

import importlib
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_store.online.address import check_address
from feature_store.online.codec import CURRENT_KEY


class Connections:
    """Reads of one store, connected at first use and never repeated: the caller decides.

    Args:
        url: redis://, rediss:// or unix://, with user and password; or file://.
        timeout_s: of one round trip.
        cluster: the store is a Redis Cluster.

    Every method raises redis.RedisError, redis.TimeoutError among them.
    """

    def __init__(self, url: str, *, timeout_s: float, cluster: bool) -> None:
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": max(timeout_s, 1.0),
        }
        self._url, self._cluster = check_address(url), cluster
        self._sync: Any = None
        self._async: Any = None

    def get(self, key: str) -> bytes | None:
        """One value."""
        value: bytes | None = self._client().get(key)
        return value

    async def aget(self, key: str) -> bytes | None:
        """The same as `get`, for asyncio."""
        value: bytes | None = await self._aclient().get(key)
        return value

    def mget_with_pointer(self, keys: list[str]) -> list[bytes | None]:
        """The pointer to the current release, then values that are proved to be of it."""
        client = self._client()
        if not self._cluster:
            return list(client.mget([CURRENT_KEY, *keys]))
        # A slot is not rewritten while it is current: an unchanged pointer after the values were
        # read proves as much as one read together with them.
        values = list(client.mget_nonatomic(keys)) if keys else []
        return [client.get(CURRENT_KEY), *values]

    async def amget_with_pointer(self, keys: list[str]) -> list[bytes | None]:
        """The same as `mget_with_pointer`, for asyncio."""
        client = self._aclient()
        if not self._cluster:
            return list(await client.mget([CURRENT_KEY, *keys]))
        values = list(await client.mget_nonatomic(keys)) if keys else []
        return [await client.get(CURRENT_KEY), *values]

    def close(self) -> None:
        """Close the blocking connections."""
        if self._sync is None:
            return
        if self._cluster:
            # A cluster client's own close() leaves the pools of its nodes open.
            self._sync.disconnect_connection_pools()
        self._sync.close()

    async def aclose(self) -> None:
        """Close the connections of asyncio."""
        if self._async is not None:
            await self._async.aclose()

    def _client(self) -> Any:
        if self._sync is None and self._url.startswith("file://"):
            self._sync = _files().FileReader(self._url)
        elif self._sync is None:
            retry = Retry(NoBackoff(), 0)
            kind = redis.RedisCluster if self._cluster else redis.Redis
            self._sync = kind.from_url(self._url, retry=retry, **self._options)
        return self._sync

    def _aclient(self) -> Any:
        if self._async is None and self._url.startswith("file://"):
            self._async = _files().AsyncFileReader(self._url)
        elif self._async is None:
            # The class of asyncio's own retry differs; none at all is the same for both.
            module = redis.asyncio
            kind = module.RedisCluster if self._cluster else module.Redis
            retry = module.retry.Retry(NoBackoff(), 0)
            self._async = kind.from_url(self._url, retry=retry, **self._options)
        return self._async


def _files() -> Any:
    """The file store's readers; only they need pyarrow."""
    return importlib.import_module("feature_store.online.stores.file")
