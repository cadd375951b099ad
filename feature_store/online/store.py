"""The online store: what every key-value store must do, and what a slot remembers about itself.

A slot is a prefix. A publish fills the slot that no reader uses; one metadata key names the
release, and with it the slot, that readers use. Stores know bytes, not vectors.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, ValidationError

from feature_store.config import PublishingConfig
from feature_store.contracts.base import Contract, Day
from feature_store.contracts.errors import ManifestCorrupt
from feature_store.online.address import check_address
from feature_store.online.codec import slot_key


class BucketDone(Contract):
    """What publishing one bucket did."""

    written: int
    removed: int
    size: int


class SlotState(Contract):
    """What a slot holds. A slot without a state holds nothing anyone may rely on.

    Attributes:
        state: `writing` from before the first changed byte until the last; then `complete`.
        ds, pool_digest: the pool that the slot holds, or is being brought to.
        base_ds, base_digest: the pool it held before, when only the difference is written.
        done: buckets that a publish has finished; a publish that was killed goes on after them.
    """

    state: Literal["writing", "complete"]
    ds: Day
    pool_digest: str
    space_id: str
    dtype: Literal["float16", "float32"]
    dim: int
    buckets: int
    users: int
    expire_days: int = 0
    base_ds: Day | None = None
    base_digest: str | None = None
    done: dict[str, BucketDone] = Field(default_factory=dict)


class SlotWriter(Protocol):
    """Writes into one slot; errors may surface as late as on exit."""

    def write(
        self,
        ids: pa.Array,
        values: npt.NDArray[np.uint8],
        expire_at: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Set rows.

        Args:
            ids: strings [N], distinct.
            values: [N, W].
            expire_at: Unix seconds [N], where rows expire by themselves.
        """
        ...

    def remove(self, ids: pa.Array) -> None:
        """Remove rows; unknown ids are fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class OnlineStore(Protocol):
    """A key-value store with slots. Every method raises StoreError when the store cannot."""

    @property
    def location(self) -> str:
        """Where the store is, without secrets."""
        ...

    def get(self, key: str) -> bytes | None:
        """One metadata value."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Set one metadata value, atomically."""
        ...

    def delete(self, key: str) -> None:
        """Remove one metadata value, if it is there."""
        ...

    def writer(self, prefix: str) -> SlotWriter:
        """A writer into one slot; several may write different ids of a slot at once."""
        ...

    def seal(self, prefix: str) -> None:
        """Make everything written to a slot readable. Called once, after the last writer."""
        ...

    def wipe(self, prefix: str) -> None:
        """Remove every row of a slot."""
        ...

    def slots(self) -> tuple[str, ...]:
        """The prefix of every slot that holds a row, or a draft of one."""
        ...

    def erase(self, prefix: str, ids: pa.Array) -> None:
        """Remove rows of a slot at once, and from what waits there to be sealed."""
        ...

    def purge(self) -> tuple[str, ...]:
        """Rewrite the store's own files, so that rows that were removed are in none of them.

        Returns:
            What could not be done or asked, and therefore is not proved; a sentence each.
        """
        ...

    def read(self, prefix: str, ids: Sequence[str]) -> list[bytes | None]:
        """The values of ids, None where there is none."""
        ...

    def sample(self, prefix: str, limit: int) -> list[str]:
        """Up to about `limit` ids of a slot, in no particular order."""
        ...

    def keys(self) -> int:
        """How many keys the whole store holds: at least the users of its slots. One round trip."""
        ...


def open_store(url: str, config: PublishingConfig | None = None) -> OnlineStore:
    """The store a URL names: `file://` a folder, anything else a Redis server or cluster.

    Raises:
        InputError: the URL is malformed.
    """
    config = config or PublishingConfig()
    check_address(url)
    if url.startswith("file://"):
        from feature_store.online.stores.file import FileStore

        return FileStore(url)
    from feature_store.online.stores.redis import RedisStore

    return RedisStore(url, batch=config.batch, bytes_per_s=config.bytes_per_s)


def slot_state(store: OnlineStore, prefix: str) -> SlotState | None:
    """What a slot says it holds; None when it says nothing.

    Raises:
        ManifestCorrupt: the state cannot be read.
    """
    raw = store.get(slot_key(prefix))
    if raw is None:
        return None
    try:
        return SlotState.model_validate_json(raw)
    except ValidationError as error:
        raise ManifestCorrupt(
            "the state of a slot cannot be read",
            where=f"{store.location} {slot_key(prefix)}",
            found=str(error),
            hint="delete that key and publish again: the slot is then written in full",
        ) from error


def put_slot_state(store: OnlineStore, prefix: str, state: SlotState) -> None:
    """Record what a slot holds."""
    store.put(slot_key(prefix), state.model_dump_json().encode())
