"""What a file of the lake holds, said by its name, and checked before anything is read from it.

    <random>-<digest of its rows>-<digest of its bytes>.parquet

The first digest is lineage: equal rows have it wherever and by whichever writer they were written.
The second guards the file: its bytes are hashed by the first reader of each process, at memory
speed (XXH3). So a file that was changed, cut short or put in the place of another is refused
instead of read.
"""

import functools
import io
import mmap
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from feature_store.contracts.errors import ContractViolation, DamagedFile

_NAME = re.compile(r"[0-9a-f]{32}-(?P<rows>[0-9a-f]{32})-(?P<content>[0-9a-f]{32})\.parquet")
_AT_ONCE = 4 << 20
_REPAIR = "derm verify reads everything, and names the command that makes the file again"


@dataclass(frozen=True, slots=True)
class Digests:
    """What the name of a file says.

    Attributes:
        rows: digest of its rows and their order.
        content: digest of its bytes.
    """

    rows: str
    content: str

    def name(self) -> str:
        """A name for such a file that no other file has."""
        return f"{uuid.uuid4().hex}-{self.rows}-{self.content}.parquet"


def digests_of(path: str) -> Digests:
    """What the name of a file says.

    Raises:
        ContractViolation: the name says nothing: another program wrote the file.
    """
    if not (match := _NAME.fullmatch(path.rpartition("/")[2])):
        raise ContractViolation(
            "a file of the lake was not written by derm",
            where=path,
            expected="a name that ends in the digests of its rows and of its bytes",
            found=path.rpartition("/")[2],
            hint=f"what another program wrote is not built on; {_REPAIR}",
        )
    return Digests(match["rows"], match["content"])


class HashedStream(io.RawIOBase):
    """Writes to a stream, and hashes what passes."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._state = stream, xxhash.xxh3_128()
        self.size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Write all of the bytes."""
        self._state.update(data)
        self._stream.write(data)
        self.size += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """Digest of everything written so far."""
        return self._state.hexdigest()


def check_local_file(path: str) -> None:
    """Compare a local file with its name: by its bytes, once in a process.

    Raises:
        DamagedFile: it holds other bytes.
        ContractViolation: its name says nothing.
        OSError: it is not there.
    """
    found = Path(path).stat()
    _check_once(path, found.st_size, found.st_mtime_ns, found.st_ino)


def check_bytes(path: str, data: pa.Buffer | mmap.mmap | bytes) -> None:
    """Compare the bytes of a file with its name.

    Raises:
        DamagedFile: they are others.
        ContractViolation: the name says nothing.
    """
    expected, found = digests_of(path).content, xxhash.xxh3_128_hexdigest(data)
    _compare(path, expected, found, len(data))


def _compare(path: str, expected: str, found: str, size: int) -> None:
    if found != expected:
        raise DamagedFile(
            "a file of the lake is not the one that was written",
            where=path,
            expected=f"bytes with digest {expected}",
            found=f"{size:,} bytes with digest {found}",
            hint=_REPAIR,
        )


def check_stream(path: str, stream: pa.NativeFile) -> int:
    """Compare the bytes of a stream with the name of the file they are of; how many they are.

    Raises:
        DamagedFile: they are others.
        ContractViolation: the name says nothing.
    """
    expected, state, size = digests_of(path).content, xxhash.xxh3_128(), 0
    while data := stream.read(_AT_ONCE):
        state.update(data)
        size += len(data)
    _compare(path, expected, state.hexdigest(), size)
    return size


@functools.lru_cache(maxsize=1 << 16)
def _check_once(path: str, size: int, _modified_ns: int, _inode: int) -> None:
    if size == 0:  # nothing to map
        check_bytes(path, b"")
        return
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data,
    ):
        check_bytes(path, data)
