"""Which of a Redis Cluster's 16,384 hash slots a key belongs to, for many keys at once.

Source: Redis cluster specification, appendix A: CRC16-CCITT (XMODEM), polynomial 0x1021; only
the part between the first `{` and the next `}` is hashed when there is one.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.online.stores.resp import key_bytes

_SLOTS = 16384


def _table() -> npt.NDArray[np.uint16]:
    table = np.arange(256, dtype=np.uint32) << 8
    for _ in range(8):
        table = np.where(table & 0x8000, (table << 1) ^ 0x1021, table << 1) & 0xFFFF
    return table.astype(np.uint16)


_CRC16 = _table()


def slots_of(prefix: bytes, ids: pa.Array) -> npt.NDArray[np.int64]:
    """Hash slots [N] of the keys prefix + id."""
    slots = np.zeros(len(ids), np.int64)
    for rows, keys in key_bytes(prefix, ids):
        where = slice(None) if rows is None else rows
        slots[where] = _crc16(keys) % _SLOTS
        # Ids with a hash tag are rare: one by one.
        tagged = np.flatnonzero((keys == ord("{")).any(axis=1))
        for row in tagged:
            key = _tag(keys[row].tobytes())
            slot = _crc16(np.frombuffer(key, np.uint8)[None])[0] % _SLOTS
            slots[row if rows is None else rows[row]] = slot
    return slots


def _crc16(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """CRC [n] of the rows of a byte matrix [n, L], one pass per byte position."""
    crc = np.zeros(len(keys), np.uint16)
    for column in keys.T:
        crc = (crc << np.uint16(8)) ^ _CRC16[(crc >> np.uint16(8)) ^ column]
    return crc


def _tag(key: bytes) -> bytes:
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if end > start + 1 else key
