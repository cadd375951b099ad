"""Keys and values of the online store, byte for byte (docs/specs/online_format.md).

Shapes: N rows, D vector width, W bytes of a value (8 + D * itemsize).
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import ContractViolation, StoreError
from feature_store.embeddings.halves import to_half, to_single

VERSION = 1
HEADER_BYTES = 8
CURRENT_KEY = "derm:current"

_EPOCH = dt.date(1970, 1, 1)
_DTYPES: dict[str, tuple[int, str]] = {"float16": (1, "<f2"), "float32": (2, "<f4")}
_LITTLE_ENDIAN = ord("<")
_DAY_OFFSET = 6
_HEAD = np.dtype([("format", "<u4"), ("dim", "<u2")])


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueFormat:
    """What every value of one slot looks like: an 8-byte header, then the packed vector.

    Attributes:
        dim: width of the vector, at most 65,535.
    """

    dtype: Literal["float16", "float32"]
    dim: int

    @property
    def vector_dtype(self) -> np.dtype:
        """The NumPy dtype of the packed vector, little-endian."""
        return np.dtype(_DTYPES[self.dtype][1])

    @property
    def width(self) -> int:
        """Bytes of a value."""
        return HEADER_BYTES + self.dim * self.vector_dtype.itemsize

    def header(self) -> bytes:
        """The header without its day: version, dtype, byte order, 0, dim (the first 6 bytes)."""
        code = _DTYPES[self.dtype][0]
        return bytes((VERSION, code, _LITTLE_ENDIAN, 0)) + self.dim.to_bytes(2, "little")

    def encode(self, vectors: npt.NDArray, days: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Values of many rows.

        Args:
            vectors: [N, D], any float dtype.
            days: [N], days since 1970-01-01 on which each vector last changed.

        Returns:
            Bytes [N, W].

        Raises:
            ContractViolation: a vector is not finite, or overflows float16.
        """
        values = np.empty((len(vectors), self.width), np.uint8)
        values[:, :_DAY_OFFSET] = np.frombuffer(self.header(), np.uint8)
        values[:, _DAY_OFFSET:HEADER_BYTES] = (
            days.astype("<u2").view(np.uint8).reshape(len(vectors), 2)
        )
        packed = self._round(vectors)
        _check_finite(packed)
        values[:, HEADER_BYTES:] = packed.view(np.uint8).reshape(
            len(vectors), self.width - HEADER_BYTES
        )
        return values

    def decode(
        self, values: Sequence[bytes | None]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.uint16]]:
        """Vectors of many values; None is an id that is not there.

        Returns:
            vectors [N, D] (zeros where not found), found [N], days [N] (0 where not found).

        Raises:
            StoreError: a value has another format than the release says.
        """
        if None in values:
            found = np.array([v is not None for v in values], np.bool_)
            blank = self.header() + bytes(self.width - _DAY_OFFSET)
            joined = b"".join([blank if v is None else v for v in values])
        else:
            found = np.ones(len(values), np.bool_)
            joined = b"".join(values)  # type: ignore[arg-type] # the line above has looked
        if len(joined) != self.width * len(values):
            raise self._foreign(next(v for v in values if v is not None and len(v) != self.width))
        rows = np.frombuffer(joined, self._row)
        head = np.frombuffer(self.header(), _HEAD)[0]
        foreign = (rows["format"] != head["format"]) | (rows["dim"] != head["dim"])
        if foreign.any():
            raise self._foreign(rows[int(foreign.argmax())].tobytes())
        packed = rows["vector"]
        vectors = to_single(packed) if self.dtype == "float16" else packed.astype(np.float32)
        return vectors, found, rows["day"].astype(np.uint16)

    def _round(self, vectors: npt.NDArray) -> npt.NDArray:
        if self.dtype == "float16" and vectors.dtype == np.float32:
            return to_half(vectors)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(vectors, self.vector_dtype)

    @property
    def _row(self) -> np.dtype:
        """One value as NumPy sees it; a field of many of them is a strided view."""
        return np.dtype([*_HEAD.descr, ("day", "<u2"), ("vector", self.vector_dtype, (self.dim,))])

    def _foreign(self, value: bytes) -> StoreError:
        return StoreError(
            "a value in the online store has another format than its release says",
            expected=f"{self.width} bytes beginning with {self.header().hex()}",
            found=f"{len(value)} bytes beginning with {value[:_DAY_OFFSET].hex()}",
            hint="another program wrote below this prefix, or the client is older than the format",
        )


def space_tag(space_id: str) -> str:
    """Eight characters that stand for a space in keys, whatever the length of its id."""
    return hashlib.sha256(space_id.encode()).hexdigest()[:8]


def users_prefix(upstream: Upstream, space_id: str, slot: Literal["a", "b"]) -> str:
    """The prefix of every user key of one slot; the user id follows it."""
    return f"derm:{upstream}:{space_tag(space_id)}:{slot}:"


def release_key(release_id: str) -> str:
    """The key that holds a release as JSON."""
    return f"derm:release:{release_id}"


def slot_key(prefix: str) -> str:
    """The key that says what a slot holds, and how far a publish into it has come."""
    return f"derm:slot:{prefix.removeprefix('derm:').rstrip(':')}"


def day_of(number: int) -> str:
    """The ISO date of a header's day."""
    return (_EPOCH + dt.timedelta(days=number)).isoformat()


def _check_finite(packed: npt.NDArray) -> None:
    # By the largest magnitude's exponent bits: a quarter of the time of isfinite on float16.
    unsigned = packed.view(f"<u{packed.itemsize}")
    magnitude, infinite = {2: (0x7FFF, 0x7C00), 4: (0x7FFFFFFF, 0x7F800000)}[packed.itemsize]
    if packed.size and (unsigned & unsigned.dtype.type(magnitude)).max() >= infinite:
        rows = np.flatnonzero(~np.isfinite(packed).all(axis=1))
        raise ContractViolation(
            "vectors are not finite in the published dtype",
            expected=f"finite {packed.dtype.name} values",
            found=f"{len(rows)} of {len(packed)} rows, the first at row {rows[0]}",
            hint="publish float32, or find what made the norms grow: derm status",
        )
