"""The bytes between a ranker and a shard of the tables (docs/specs/table_wire.md).

Shapes: n ids of a request, W bytes of a row.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import StoreError
from feature_store.tables.rowwise import RowFormat

MAGIC = b"DTW1"
MAX_BODY = 1 << 26
_HEADER = struct.Struct("<4sBBHII")
# Lengths of the two names, ids, width, bits, 0, bytes of a row.
_BODY = struct.Struct("<HHIHBBI")


class Kind(IntEnum):
    """What a frame is."""

    LOOKUP = 1
    ROWS = 2
    ERROR = 3
    CONTROL = 4
    ANSWER = 5


class Code(IntEnum):
    """Why a shard did not do what it was asked."""

    VERSION_MISSING = 1
    OVERLOAD = 2
    TABLE_MISSING = 3
    WRONG_SHARD = 4
    MALFORMED = 5
    FORBIDDEN = 6


class ShardRefused(StoreError):
    """A shard said no.

    Attributes:
        code: why.
    """

    code = Code.MALFORMED


class VersionMissing(ShardRefused):
    """A shard does not hold the version that it was asked for: nothing may be made up for it."""

    code = Code.VERSION_MISSING


class BrokenFrame(StoreError):
    """What came is not this protocol; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        shard: whom it is for, or who answers.
        request: the number that an answer carries back.
    """

    kind: Kind
    shard: int
    request: int
    body: bytes

    def pack(self) -> bytes:
        """Its bytes."""
        head = _HEADER.pack(MAGIC, self.kind, 0, self.shard, self.request, len(self.body))
        return head + self.body


@dataclass(frozen=True, slots=True)
class LookupBody:
    """The body of a LOOKUP: rows of one table of one version, for ids [n] of one shard."""

    version: str
    table: str
    ids: npt.NDArray[np.int64]

    def pack(self) -> bytes:
        """Its bytes."""
        ids = self.ids.astype("<i8", copy=False)
        return _names(self.version, self.table, len(ids), None) + ids.tobytes()

    @classmethod
    def parse(cls, body: bytes) -> "LookupBody":
        """The body of a frame.

        Raises:
            BrokenFrame: it is none.
        """
        version, table, count, _, rest = _parse_names(body)
        if len(body) - rest != 8 * count:
            raise _broken(f"{count} ids in {len(body) - rest} bytes")
        return cls(version, table, np.frombuffer(body, "<i8", count, rest))


@dataclass(frozen=True, slots=True)
class RowsBody:
    """The body of ROWS: packed rows [n, W] in the order of the ids, and which ids are known [n]."""

    version: str
    table: str
    form: RowFormat
    packed: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]

    def pack(self) -> bytes:
        """Its bytes."""
        head = _names(self.version, self.table, len(self.packed), self.form)
        bits = np.packbits(self.known, bitorder="little").tobytes()
        return b"".join((head, bits, self.packed.tobytes()))

    @classmethod
    def parse(cls, body: bytes) -> "RowsBody":
        """The body of a frame.

        Raises:
            BrokenFrame: it is none.
        """
        version, table, count, form, rest = _parse_names(body)
        marks = -(-count // 8)
        if form is None or len(body) - rest != marks + count * form.row_bytes:
            raise _broken(f"{count} rows in {len(body) - rest} bytes")
        bits = np.frombuffer(body, np.uint8, marks, rest)
        known = np.unpackbits(bits, count=count, bitorder="little").astype(np.bool_)
        packed = np.frombuffer(body, np.uint8, offset=rest + marks).reshape(count, form.row_bytes)
        return cls(version, table, form, packed, known)


@dataclass(frozen=True, slots=True)
class RefusalBody:
    """The body of an ERROR."""

    code: Code
    what: str

    def pack(self) -> bytes:
        """Its bytes."""
        return struct.pack("<H", self.code) + self.what.encode()

    @classmethod
    def parse(cls, body: bytes) -> "RefusalBody":
        """The body of a frame.

        Raises:
            BrokenFrame: it is none.
        """
        try:
            return cls(Code(struct.unpack_from("<H", body)[0]), body[2:].decode())
        except (struct.error, ValueError) as error:
            raise _broken(f"an error of {len(body)} bytes") from error

    def as_error(self, where: str) -> ShardRefused:
        """What to raise for it."""
        if self.code is Code.VERSION_MISSING:
            return VersionMissing(
                "a shard does not hold the version that was asked for",
                where=where,
                found=self.what,
                hint="ask for the version that is live now, with its own dense weights; "
                "derm tables status shows what each shard holds",
            )
        error = ShardRefused(f"a shard refused: {self.code.name}", where=where, found=self.what)
        error.code = self.code
        return error


def pack_json(document: Mapping[str, Any]) -> bytes:
    """The body of a CONTROL or an ANSWER."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def parse_json(body: bytes) -> dict[str, Any]:
    """The document of a CONTROL or an ANSWER.

    Raises:
        BrokenFrame: it is none.
    """
    try:
        document = json.loads(body)
    except ValueError as error:
        raise _broken("no JSON") from error
    if not isinstance(document, dict):
        raise _broken("JSON that is no object")
    return document


class FrameReader:
    """Cuts what comes over a connection into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now.

        Raises:
            BrokenFrame: what came is not this protocol.
        """
        buffer, at = self._rest + data if self._rest else data, 0
        while len(buffer) - at >= _HEADER.size:
            magic, kind, zero, shard, request, length = _HEADER.unpack_from(buffer, at)
            if magic != MAGIC or zero or length > MAX_BODY or kind not in _KINDS:
                raise _broken(f"a frame that begins with {buffer[at : at + 8].hex()}")
            end = at + _HEADER.size + length
            if len(buffer) < end:
                break
            yield Frame(_KINDS[kind], shard, request, buffer[at + _HEADER.size : end])
            at = end
        self._rest = buffer[at:]


_KINDS = {int(kind): kind for kind in Kind}


def _names(version: str, table: str, count: int, form: RowFormat | None) -> bytes:
    """The beginning of a body, to a multiple of 8 bytes."""
    first, second = version.encode(), table.encode()
    dim, bits, width = (form.dim, form.bits, form.row_bytes) if form else (0, 0, 0)
    head = _BODY.pack(len(first), len(second), count, dim, bits, 0, width)
    names = first + second
    return head + names + bytes(-len(names) % 8)


def _parse_names(body: bytes) -> tuple[str, str, int, RowFormat | None, int]:
    """Version, table, count, format and where the rest begins."""
    try:
        first, second, count, dim, bits, _, width = _BODY.unpack_from(body)
        at = _BODY.size
        version = body[at : at + first].decode()
        table = body[at + first : at + first + second].decode()
        form = RowFormat(bits=bits, dim=dim) if bits else None
    except (struct.error, ValueError) as error:
        raise _broken(f"a body of {len(body)} bytes") from error
    if form and form.row_bytes != width:
        raise _broken(f"rows of {width} bytes, {form.bits} bits and width {form.dim}")
    names = first + second
    return version, table, count, form, at + names + -names % 8


def _broken(found: str) -> BrokenFrame:
    return BrokenFrame(
        "what came is not the protocol of the tables",
        expected=f"frames that begin with {MAGIC.decode()}",
        found=found,
        hint="is this the address of a shard, and of the same version of this project?",
    )
