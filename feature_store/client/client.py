"""What a ranker imports: users' embeddings from Redis, Pins from the index, one release at a time.

Every read carries the pointer key in the same MGET as the values. Redis answers an MGET as one
step, so a pointer equal to the one the keys were made from proves that all values are of that
release; another pointer means that a new day was released in between, and the read is repeated.

Needs redis, numpy and the contracts, faiss for `search` alone; nothing of the pipeline (file://
needs pyarrow too).
Shapes: N ids, D vector width, K results.
"""

from __future__ import annotations  # faiss is for `search` alone

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import redis

from feature_store.client.connections import Connections
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import InputError, StoreError
from feature_store.contracts.manifests import PublishedUpstream, Release
from feature_store.online.codec import CURRENT_KEY, ValueFormat, release_key

if TYPE_CHECKING:
    from feature_store.index.index import Hits, PinIndex, Wanted

Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]

# A flip between two attempts is a daily event; several in a row mean something else is wrong.
_ATTEMPTS = 5


@dataclass(slots=True)
class Counters:
    """What happened so far; read it into the ranker's own metrics."""

    timeouts: int = 0
    flips: int = 0
    cache_hits: int = 0


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A release as this client reads it.

    Attributes:
        cache: values of this release; a read that began under another one cannot reach it.
    """

    release: Release
    entry: PublishedUpstream
    format: ValueFormat
    cache: OrderedDict[str, bytes] = field(default_factory=OrderedDict)

    @property
    def pointer(self) -> bytes:
        """What the pointer key holds while this release is current."""
        return self.release.release_id.encode()


class FeatureClient:
    """Reads one upstream of the current release.

    Args:
        url: the online store: redis://, rediss:// or unix://, with user and password; or file://.
        upstream: whose vectors; None: the first one of the release.
        home: where `index/` is; needed by `search` only.
        timeout_s: of one round trip; a read that takes longer finds nobody and is counted.
        cache_users: vectors kept between calls, for the current release only; 0 keeps none.
        cluster: the store is a Redis Cluster.
    """

    def __init__(
        self,
        url: str,
        *,
        upstream: Upstream | None = None,
        home: Path | None = None,
        timeout_s: float = 0.1,
        cache_users: int = 0,
        cluster: bool = False,
    ) -> None:
        self._upstream, self._home = upstream, home
        self.connections = Connections(url, timeout_s=timeout_s, cluster=cluster)
        self._resolved: _Resolved | None = None
        self._index: tuple[str, PinIndex] | None = None
        self._cache_users = cache_users
        self.counters = Counters()

    @property
    def upstream(self) -> Upstream:
        """The upstream that is read.

        Raises:
            StoreError: nothing was released yet, or the store cannot be reached.
        """
        return self._resolve().entry.upstream

    @property
    def release(self) -> Release:
        """The release that reads use now.

        Raises:
            StoreError: nothing was released yet, or the store cannot be reached.
        """
        return self._resolve().release

    def get_users(self, ids: Sequence[str]) -> Found:
        """Embeddings of users, all of one release.

        Returns:
            vectors [N, D] (zeros where not found) and found [N], in the order of `ids`.

        Raises:
            StoreError: the store cannot be reached, or nothing was released.
        """
        return self._read(ids)[1]

    def get_pins(self, ids: Sequence[str]) -> Found:
        """Embeddings of Pins, all of one release.

        Returns:
            vectors [N, D] of length 1, as the index holds them (zeros where not found), and found
            [N], in the order of `ids`.

        Raises:
            StoreError: the index of the release is not there, or the store cannot be reached.
        """
        index = self.index
        rows = index.rows_of(ids)
        found: npt.NDArray[np.bool_] = rows >= 0
        vectors = np.zeros((len(rows), index.manifest.dim), np.float32)
        vectors[found] = index.vectors(rows[found])
        return vectors, found

    async def aget_users(self, ids: Sequence[str]) -> Found:
        """The same as `get_users`, for asyncio."""
        resolved = await self._aresolve()
        try:
            for _ in range(_ATTEMPTS):
                cached, keys = self._split(resolved, ids)
                pointer, *values = await self.connections.amget_with_pointer(keys)
                if pointer == resolved.pointer:
                    return self._decode(resolved, ids, cached, values)
                resolved = await self._afetch()
        except redis.TimeoutError:
            return self._nobody(resolved, len(ids))
        except redis.RedisError as error:
            raise _unreachable(error) from error
        raise _never_still()

    def search(
        self,
        vector: npt.NDArray | None = None,
        *,
        user_id: str | None = None,
        k: int = 10,
        where: Mapping[str, Wanted] | None = None,
    ) -> Hits:
        """The K best Pins for a vector [D] or [Q, D], or for a user.

        Args:
            where: metadata column -> value a Pin must have, or least and most of a number.

        Raises:
            InputError: neither or both of vector and user were given, the user is unknown, or the
                index has no such metadata.
            StoreError: the index of the release is not there, or the store cannot be reached.
        """
        if (vector is None) == (user_id is None) or k < 1:
            raise InputError(
                "a search needs a vector or a user, and k >= 1",
                expected="exactly one of vector and user_id",
                found=f"vector {'given' if vector is not None else 'absent'}, "
                f"user_id {user_id}, k {k}",
            )
        if user_id is None:
            return self.index.search(np.asarray(vector), k, where)
        resolved, (vectors, found) = self._read([user_id])
        if not found[0]:
            raise InputError(
                f"user {user_id} is not in release {resolved.release.release_id}",
                hint="unknown, inactive for too long, or the read timed out",
            )
        return self._index_of(resolved).search(vectors, k, where)

    @property
    def index(self) -> PinIndex:
        """The Pin index of the current release, memory-mapped once per release.

        While the store does not answer in time it is that of the last release seen.
        """
        resolved = self._resolve()
        try:
            if self.connections.get(CURRENT_KEY) != resolved.pointer:
                resolved = self._fetch()
        except redis.TimeoutError:
            self.counters.timeouts += 1
        except redis.RedisError as error:
            raise _unreachable(error) from error
        return self._index_of(resolved)

    def close(self) -> None:
        """Close the synchronous connections."""
        self.connections.close()

    async def aclose(self) -> None:
        """Close the asynchronous connections."""
        await self.connections.aclose()

    def _read(self, ids: Sequence[str]) -> tuple[_Resolved, Found]:
        """Users, and the one release that they are all of."""
        resolved = self._resolve()
        try:
            for _ in range(_ATTEMPTS):
                cached, keys = self._split(resolved, ids)
                pointer, *values = self.connections.mget_with_pointer(keys)
                if pointer == resolved.pointer:
                    return resolved, self._decode(resolved, ids, cached, values)
                resolved = self._fetch()
        except redis.TimeoutError:
            return resolved, self._nobody(resolved, len(ids))
        except redis.RedisError as error:
            raise _unreachable(error) from error
        raise _never_still()

    def _index_of(self, resolved: _Resolved) -> PinIndex:
        if self._home is None:
            raise InputError(
                "this client was given no home", hint="FeatureClient(url, home=Path(DERM_HOME))"
            )
        from feature_store.index.index import PinIndex

        path, loaded = resolved.entry.index_path, self._index
        if loaded is None or loaded[0] != path:
            self._index = loaded = (path, PinIndex(self._home / path))
        return loaded[1]

    def _resolve(self) -> _Resolved:
        """The last release seen; the current one when there is none."""
        try:
            return self._resolved or self._fetch()
        except redis.RedisError as error:
            raise _unreachable(error) from error

    async def _aresolve(self) -> _Resolved:
        try:
            return self._resolved or await self._afetch()
        except redis.RedisError as error:
            raise _unreachable(error) from error

    def _fetch(self) -> _Resolved:
        """The release that is current now."""
        read = self.connections.get
        pointer = read(CURRENT_KEY)
        return self._adopt(pointer, read(release_key(pointer.decode())) if pointer else None)

    async def _afetch(self) -> _Resolved:
        read = self.connections.aget
        pointer = await read(CURRENT_KEY)
        body = await read(release_key(pointer.decode())) if pointer else None
        return self._adopt(pointer, body)

    def _adopt(self, pointer: bytes | None, body: bytes | None) -> _Resolved:
        if pointer is None or body is None:
            raise StoreError(
                "nothing is published",
                expected=f"a release under the key {CURRENT_KEY}",
                found="no pointer" if pointer is None else f"no body for {pointer.decode()}",
                hint="derm status: the first day was never released, or the store has lost it "
                "(derm restore)",
            )
        release = Release.model_validate_json(body)
        wanted = self._upstream or release.upstreams[0].upstream
        entry = next((e for e in release.upstreams if e.upstream == wanted), None)
        if entry is None:
            raise StoreError(
                f"release {release.release_id} has no upstream {wanted}",
                found=" ".join(e.upstream for e in release.upstreams),
            )
        if self._resolved is not None and self._resolved.release == release:
            return self._resolved
        if self._resolved is not None:
            self.counters.flips += 1
        resolved = _Resolved(release, entry, ValueFormat(dtype=entry.dtype, dim=entry.dim))
        self._resolved = resolved
        return resolved

    def _split(self, resolved: _Resolved, ids: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
        """What the cache knows, and the keys of the rest."""
        prefix, cache = resolved.entry.users_prefix, resolved.cache
        if not cache:
            return {}, [prefix + i for i in ids]
        cached = {i: value for i in ids if (value := cache.get(i)) is not None}
        self.counters.cache_hits += len(cached)
        return cached, [prefix + i for i in ids if i not in cached]

    def _decode(
        self,
        resolved: _Resolved,
        ids: Sequence[str],
        cached: dict[str, bytes],
        values: list[bytes | None],
    ) -> Found:
        if cached:
            rest = iter(values)
            values = [cached[i] if i in cached else next(rest) for i in ids]
        if self._cache_users:
            fresh, cache = zip(ids, values, strict=True), resolved.cache
            cache.update((i, v) for i, v in fresh if v is not None and i not in cached)
            while len(cache) > self._cache_users:
                cache.popitem(last=False)
        vectors, found, _ = resolved.format.decode(values)
        return vectors, found

    def _nobody(self, resolved: _Resolved, count: int) -> Found:
        self.counters.timeouts += 1
        return np.zeros((count, resolved.format.dim), np.float32), np.zeros(count, np.bool_)


def _unreachable(error: Exception) -> StoreError:
    return StoreError(
        "the online store cannot be read",
        found=f"{type(error).__name__}: {error}",
        hint="is Redis up, and are user and password right?",
    )


def _never_still() -> StoreError:
    return StoreError(
        "the release changed under every attempt to read",
        expected="a pointer that stays for one round trip",
        found=f"{_ATTEMPTS} changes in a row",
        hint="is something flipping releases in a loop?",
    )
