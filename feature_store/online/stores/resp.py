"""Redis commands for many rows at once, assembled by NumPy as raw RESP bytes.

Rows whose ids have the same length have commands of the same length, so a group of them is a
byte matrix: constants are broadcast into their columns, ids and values copied into theirs.
No row is ever a Python object, which is what makes this as fast as the server reads.

Source: Redis serialization protocol specification (RESP2), arrays and bulk strings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
# What a row consists of: constants, and columns [n, L] that differ from row to row.
_Pieces = Sequence[bytes | Bytes]


@dataclass(slots=True)
class Payload:
    """Bytes to send, and how many replies they cause."""

    chunks: list[memoryview] = field(default_factory=list)
    replies: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(c) for c in self.chunks)

    def add(self, name: bytes, arguments: int, row: _Pieces, batch: int) -> None:
        """Append commands of `batch` rows each, the last of which may have fewer.

        Args:
            arguments: how many of them each row adds to a command.
        """
        rows = next(len(p) for p in row if not isinstance(p, bytes))
        whole = rows - rows % batch
        for start, stop, size in ((0, whole, batch), (whole, rows, rows - whole)):
            if start < stop:
                head = b"*%d\r\n$%d\r\n%b\r\n" % (1 + arguments * size, len(name), name)
                part = [p if isinstance(p, bytes) else p[start:stop] for p in row]
                self.chunks.append(_commands(head, part, (stop - start) // size, size))
                self.replies += (stop - start) // size


def mset(prefix: bytes, ids: pa.Array, values: Bytes, batch: int) -> Payload:
    """MSET commands of `batch` rows each. Args: ids [N], values [N, W]."""
    payload = Payload()
    for rows, names in _by_length(ids):
        row = [*_key(prefix, names), *_bulk(_of(values, rows))]
        payload.add(b"MSET", 2, row, batch)
    return payload


def unlink(prefix: bytes, ids: pa.Array, batch: int) -> Payload:
    """UNLINK commands of `batch` keys each."""
    payload = Payload()
    for _, names in _by_length(ids):
        payload.add(b"UNLINK", 1, _key(prefix, names), batch)
    return payload


def set_each(
    prefix: bytes, ids: pa.Array, values: Bytes, expire_at: npt.NDArray[np.int64] | None
) -> Payload:
    """One SET command per row: where rows expire, or live on different nodes of a cluster.

    Args:
        expire_at: Unix seconds [N] of 10 digits (until the year 2286), or None.
    """
    payload = Payload()
    for rows, names in _by_length(ids):
        row = [*_key(prefix, names), *_bulk(_of(values, rows))]
        if expire_at is not None:
            digits = _of(expire_at, rows).astype("S10").view(np.uint8).reshape(-1, 10)
            row += [b"$4\r\nEXAT\r\n", *_bulk(digits)]
        payload.add(b"SET", 2 if expire_at is None else 4, row, 1)
    return payload


def key_bytes(prefix: bytes, ids: pa.Array) -> Iterator[tuple[npt.NDArray[np.int64] | None, Bytes]]:
    """Whole keys as byte matrices, one per id length, with the rows they belong to."""
    for rows, names in _by_length(ids):
        start = np.broadcast_to(np.frombuffer(prefix, np.uint8), (len(names), len(prefix)))
        yield rows, np.concatenate([start, names], axis=1)


def _by_length(ids: pa.Array) -> Iterator[tuple[npt.NDArray[np.int64] | None, Bytes]]:
    """UTF-8 bytes [n, L] of the ids of each length, and their rows (None: all, in order)."""
    if len(ids) == 0:
        return
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    distinct = np.unique(lengths).tolist()
    if len(distinct) == 1:
        yield None, data[offsets[0] : offsets[-1]].reshape(len(ids), distinct[0])
        return
    for length in distinct:
        rows = np.flatnonzero(lengths == length)
        yield rows, data[offsets[rows][:, None] + np.arange(length)]


def _of(column: npt.NDArray, rows: npt.NDArray[np.int64] | None) -> npt.NDArray:
    return column if rows is None else column[rows]


def _key(prefix: bytes, names: Bytes) -> list[bytes | Bytes]:
    """The argument that is prefix and id."""
    return [b"$%d\r\n%b" % (len(prefix) + names.shape[1], prefix), names, b"\r\n"]


def _bulk(column: Bytes) -> list[bytes | Bytes]:
    """An argument of the same length in every row."""
    return [b"$%d\r\n" % column.shape[1], column, b"\r\n"]


def _commands(head: bytes, row: _Pieces, count: int, size: int) -> memoryview:
    """`count` commands in one buffer: `head`, then `size` rows."""
    joined = _join(row)
    width = sum(p.shape[1] for p in joined)
    commands = np.empty((count, len(head) + size * width), np.uint8)
    commands[:, : len(head)] = np.frombuffer(head, np.uint8)
    # A view: rows are not contiguous across commands, but they are within one.
    rows = commands[:, len(head) :].reshape(count, size, width, copy=False)
    at = 0
    for piece in joined:
        end = at + piece.shape[1]
        rows[..., at:end] = piece if len(piece) == 1 else piece.reshape(count, size, -1)
        at = end
    return commands.data.cast("B")


def _join(row: _Pieces) -> list[Bytes]:
    """Columns [n, L] or [1, L]; neighbouring constants become one, which is written faster."""
    joined: list[Bytes] = []
    for constant, group in groupby(row, lambda p: isinstance(p, bytes)):
        if constant:
            joined.append(np.frombuffer(b"".join(group), np.uint8)[None])  # type: ignore[arg-type] # grouped by it
        else:
            joined += [p for p in group if not isinstance(p, bytes)]
    return joined
