"""The keys of a Redis dump that holds strings only, as the online store does.

Source: the RDB format as `rdb.c` of Redis 6.2 and 7.2 writes it.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

_END, _DATABASE, _SIZES, _AUXILIARY = 0xFF, 0xFE, 0xFB, 0xFA
# Opcodes that say when a key expires or was used, and the bytes that follow each.
_ABOUT_THE_NEXT = {0xFD: 4, 0xFC: 8, 0xF9: 1}
_IDLE = 0xF8
_INTEGERS = {0: "<b", 1: "<h", 2: "<i"}


def strings(file: BinaryIO) -> Iterator[bytes]:
    """Every key, in the order of the file.

    Raises:
        ValueError: the dump is cut short, compressed, or holds something else than strings.
    """
    file.read(9)
    while (opcode := _byte(file)) != _END:
        if opcode == _DATABASE:
            _length(file)
        elif opcode == _SIZES:
            _length(file), _length(file)
        elif opcode == _AUXILIARY:
            _string(file), _string(file)
        elif opcode == _IDLE:
            _length(file)
        elif opcode in _ABOUT_THE_NEXT:
            file.read(_ABOUT_THE_NEXT[opcode])
        elif opcode == 0:
            yield _string(file)
            _string(file)
        else:
            raise ValueError(f"a value of type {opcode}")


def _byte(file: BinaryIO) -> int:
    if not (one := file.read(1)):
        raise ValueError("cut short")
    return one[0]


def _length(file: BinaryIO) -> int:
    """A length; negative for the encodings of integers."""
    first = _byte(file)
    kind, rest = first >> 6, first & 0x3F
    if kind == 0:
        return rest
    if kind == 1:
        return rest << 8 | _byte(file)
    if kind == 3:
        return -1 - rest
    return int(struct.unpack(*((">I", file.read(4)) if first == 0x80 else (">Q", file.read(8))))[0])


def _string(file: BinaryIO) -> bytes:
    length = _length(file)
    if length >= 0:
        return file.read(length)
    if (code := _INTEGERS.get(-1 - length)) is None:
        raise ValueError("a compressed string")
    return str(struct.unpack(code, file.read(struct.calcsize(code)))[0]).encode()
