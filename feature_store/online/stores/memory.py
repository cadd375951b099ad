"""The online store in a dictionary: for tests, and for reading the protocol."""

from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class MemoryStore:
    """Slots and metadata of one process. Expiry is not kept: nothing outlives the process."""

    location = "memory"

    def __init__(self) -> None:
        self._meta: dict[str, bytes] = {}
        self._slots: defaultdict[str, dict[str, bytes]] = defaultdict(dict)

    def get(self, key: str) -> bytes | None:
        """One metadata value."""
        return self._meta.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Set one metadata value."""
        self._meta[key] = value

    def delete(self, key: str) -> None:
        """Remove one metadata value."""
        self._meta.pop(key, None)

    def writer(self, prefix: str) -> "MemoryWriter":
        """A writer into one slot."""
        return MemoryWriter(self._slots[prefix])

    def seal(self, prefix: str) -> None:
        """Nothing to do: rows are readable as they are written."""

    def wipe(self, prefix: str) -> None:
        """Remove every row of a slot."""
        self._slots[prefix].clear()

    def slots(self) -> tuple[str, ...]:
        """The prefixes that hold a row."""
        return tuple(sorted(prefix for prefix, rows in self._slots.items() if rows))

    def erase(self, prefix: str, ids: pa.Array) -> None:
        """Remove rows."""
        self.writer(prefix).remove(ids)

    def purge(self) -> tuple[str, ...]:
        """Nothing to do: there are no files."""
        return ()

    def read(self, prefix: str, ids: Sequence[str]) -> list[bytes | None]:
        """The values of ids."""
        return [self._slots[prefix].get(i) for i in ids]

    def sample(self, prefix: str, limit: int) -> list[str]:
        """The first ids."""
        return list(self._slots[prefix])[:limit]

    def keys(self) -> int:
        """Rows of every slot, and metadata."""
        return len(self._meta) + sum(map(len, self._slots.values()))


class MemoryWriter:
    """Writes into a dictionary."""

    def __init__(self, rows: dict[str, bytes]) -> None:
        self._rows = rows

    def write(
        self,
        ids: pa.Array,
        values: npt.NDArray[np.uint8],
        expire_at: npt.NDArray[np.int64] | None = None,  # noqa: ARG002 - the protocol's
    ) -> None:
        """Set rows."""
        self._rows.update(zip(ids.to_pylist(), map(bytes, values), strict=True))

    def remove(self, ids: pa.Array) -> None:
        """Remove rows."""
        for entity_id in ids.to_pylist():
            self._rows.pop(entity_id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is buffered."""
