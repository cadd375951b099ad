"""Redis commands for many rows at once, assembled by NumPy as raw RESP bytes.

Rows whose ids have the same length have commands of the same length, so a group of them is a
byte matrix: one row of constants, broadcast, with the ids and values copied into their columns.
No row is ever a Python object, which is what makes this as fast as the server reads.

Source: Redis serialization protocol specification (RESP2), arrays and bulk strings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
_Piece = bytes | tuple[bytes, Bytes]


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes to send, and how many replies they cause."""

    chunks: list[bytes | memoryview]
    replies: int

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(c) for c in self.chunks)


def mset(prefix: bytes, ids: pa.Array, values: Bytes, batch: int) -> Payload:
    """MSET commands of `batch` rows each. Args: ids [N], values [N, W]."""
    chunks: list[bytes | memoryview] = []
    replies = 0
    for rows, keys in _by_length(prefix, ids):
        block = _fill([_bulk(keys), _bulk(values if rows is None else values[rows])])
        for start in range(0, len(block), batch):
            part = block[start : start + batch]
            chunks += [b"*%d\r\n$4\r\nMSET\r\n" % (2 * len(part) + 1), part.data.cast("B")]
            replies += 1
    return Payload(chunks, replies)


def unlink(prefix: bytes, ids: pa.Array, batch: int) -> Payload:
    """UNLINK commands of `batch` keys each."""
    chunks: list[bytes | memoryview] = []
    replies = 0
    for _, keys in _by_length(prefix, ids):
        block = _fill([_bulk(keys)])
        for start in range(0, len(block), batch):
            part = block[start : start + batch]
            chunks += [b"*%d\r\n$6\r\nUNLINK\r\n" % (len(part) + 1), part.data.cast("B")]
            replies += 1
    return Payload(chunks, replies)


def set_each(
    prefix: bytes, ids: pa.Array, values: Bytes, expire_at: npt.NDArray[np.int64] | None
) -> Payload:
    """One SET command per row: where rows expire, or live on different nodes of a cluster.

    Args:
        expire_at: Unix seconds [N] of 10 digits (until the year 2286), or None.
    """
    chunks: list[bytes | memoryview] = []
    for rows, keys in _by_length(prefix, ids):
        pieces: list[_Piece] = [b"*%d\r\n$3\r\nSET\r\n" % (3 if expire_at is None else 5)]
        pieces += [_bulk(keys), _bulk(values if rows is None else values[rows])]
        if expire_at is not None:
            times = expire_at if rows is None else expire_at[rows]
            digits = times.astype("S10").view(np.uint8).reshape(len(times), 10)
            pieces += [b"$4\r\nEXAT\r\n", _bulk(digits)]
        chunks.append(_fill(pieces).data.cast("B"))
    return Payload(chunks, len(ids))


def unlink_each(prefix: bytes, ids: pa.Array) -> Payload:
    """One UNLINK command per key."""
    blocks = [
        _fill([b"*2\r\n$6\r\nUNLINK\r\n", _bulk(keys)]) for _, keys in _by_length(prefix, ids)
    ]
    return Payload([b.data.cast("B") for b in blocks], len(ids))


def key_bytes(prefix: bytes, ids: pa.Array) -> Iterator[tuple[npt.NDArray | None, Bytes]]:
    """Whole keys as byte matrices, one per id length, with the rows they belong to."""
    yield from _by_length(prefix, ids)


def _by_length(prefix: bytes, ids: pa.Array) -> Iterator[tuple[npt.NDArray | None, Bytes]]:
    """Keys [n, L] of each id length, and their rows in `ids` (None: all of them, in order)."""
    if len(ids) == 0:
        return
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    distinct = np.unique(lengths)
    for length in distinct.tolist():
        keys_rows = None if len(distinct) == 1 else np.flatnonzero(lengths == length)
        count = len(ids) if keys_rows is None else len(keys_rows)
        keys = np.empty((count, len(prefix) + length), np.uint8)
        keys[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
        if keys_rows is None:
            keys[:, len(prefix) :] = data[offsets[0] : offsets[-1]].reshape(count, length)
        else:
            keys[:, len(prefix) :] = data[offsets[keys_rows][:, None] + np.arange(length)]
        yield keys_rows, keys


def _bulk(column: Bytes) -> tuple[bytes, Bytes]:
    """A column [n, L] of equally long arguments, with the bulk string header they share."""
    return b"$%d\r\n" % column.shape[1], column


def _fill(pieces: Sequence[_Piece]) -> Bytes:
    """Rows of commands: constants are broadcast, columns copied, each ended by CR LF."""
    rows = next(len(p[1]) for p in pieces if isinstance(p, tuple))
    flat: list[bytes | Bytes] = []
    for piece in pieces:
        flat += [piece] if isinstance(piece, bytes) else [piece[0], piece[1], b"\r\n"]
    width = sum(len(p) if isinstance(p, bytes) else p.shape[1] for p in flat)
    block = np.empty((rows, width), np.uint8)
    at = 0
    for part in flat:
        column = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        block[:, at : at + column.shape[-1]] = column
        at += column.shape[-1]
    return block
