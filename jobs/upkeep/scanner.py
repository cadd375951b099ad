"""Looks for ids in files without knowing what the files are for: in their bytes, and decoded.

A file that says what it is (Parquet, Arrow, NumPy, SQLite, a dump of Redis, anything compressed) is
decoded, and its values are compared whole, entries of a dictionary that no row uses included. The
bytes of every file are searched besides, as UTF-8, UTF-16 and as JSON escapes them.

An id of few bytes occurs everywhere by chance: among bytes only ids of `TELLING` bytes and more are
looked for, and not inside a longer word, which is another id; shorter ones are found as whole
values alone. Where no other id can contain one of them, `anywhere` looks inside words as well.
"""

import json
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.upkeep import rdb

TELLING = 6
_CHUNK = 4 << 20
_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz-")
_TEXT_LENGTH = 32
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22": "lz4"}


@dataclass(frozen=True, slots=True)
class Trace:
    """Ids that a file holds.

    Attributes:
        where: column of a decoded file, or `bytes`.
    """

    file: str
    where: str
    ids: frozenset[str]


class Wanted:
    """Ids, prepared for being looked for."""

    def __init__(self, ids: Sequence[str], *, anywhere: bool = False, quoted: bool = False) -> None:
        """Prepare.

        Args:
            anywhere: look inside words as well.
            quoted: look for short ids too, where they stand in quotes, as messages show values.
        """
        self.values = pa.array(ids, pa.string())
        # How an id may be spelt -> the id, and the bytes of a character (0: it needs no borders).
        self._spellings: dict[bytes, tuple[str, int]] = {}
        for entity_id in ids:
            escaped = json.dumps(entity_id)[1:-1]
            plain = {entity_id, repr(entity_id)[1:-1], escaped, json.dumps(escaped)[1:-1]}
            if len(entity_id.encode()) >= TELLING:
                self._add(entity_id, 0 if anywhere else 1, (s.encode() for s in plain))
                wide = (entity_id.encode(e) for e in ("utf-16-le", "utf-16-be"))
                self._add(entity_id, 0 if anywhere else 2, wide)
            elif quoted:
                self._add(entity_id, 0, (f"{q}{s}{q}".encode() for s in plain for q in "'\""))
        self._lengths = sorted({len(s) for s in self._spellings})
        # Which pairs of bytes an id may have at 0, 2 and 4: what fails there is not looked at.
        self._pairs = np.zeros((3, 1 << 16), np.bool_)
        for spelling in self._spellings:
            for at in range(3):
                pair = spelling[2 * at : 2 * at + 2]
                self._pairs[at, int.from_bytes(pair, "little") if len(pair) == 2 else ...] = True

    def _add(self, entity_id: str, width: int, spellings: Iterable[bytes]) -> None:
        self._spellings.update(dict.fromkeys(spellings, (entity_id, width)))

    @property
    def overlap(self) -> int:
        """Bytes that two neighbouring pieces of a file share, so that nothing hides between."""
        return 2 * max(self._lengths, default=0)

    def among(self, values: pa.Array) -> set[str]:
        """The ids that are values of an array, of whatever nesting."""
        if pa.types.is_dictionary(values.type):
            return self.among(values.dictionary)
        if pa.types.is_nested(values.type):
            parts = values.flatten()
            arrays = parts if isinstance(parts, list) else [parts]
            return set().union(*(self.among(a) for a in arrays))
        if pa.types.is_binary(values.type):
            return self._among_bytes(values)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return set()
        hits = values.filter(pc.is_in(values, value_set=self.values.cast(values.type)))
        found = set(pc.unique(hits).to_pylist())
        if len(values) and (pc.mean(pc.binary_length(values)).as_py() or 0) > _TEXT_LENGTH:
            found |= self.within("\n".join(v for v in values.to_pylist() if v).encode())
        return found

    def _among_bytes(self, values: pa.Array) -> set[str]:
        hits = values.filter(pc.is_in(values, value_set=self.values.cast(values.type)))
        return {v.decode() for v in pc.unique(hits).to_pylist()}

    def within(self, data: bytes) -> set[str]:
        """The telling ids that are words of some bytes."""
        return {found for found, _, _ in self.places(data)}

    def places(self, data: bytes) -> Iterator[tuple[str, int, int]]:
        """Every telling id in some bytes that is no part of a longer word: id, start, length."""
        if not self._lengths or len(data) < self._lengths[0]:
            return
        # Behind the end, so that an id at the very end has pairs to look at.
        raw = np.frombuffer(data + bytes(6), np.uint8).astype(np.uint16)
        pairs = raw[:-1] | raw[1:] << 8
        end = len(pairs) - 4
        may = self._pairs[0][pairs[:end]]
        may &= self._pairs[1][pairs[2 : end + 2]]
        may &= self._pairs[2][pairs[4 : end + 4]]
        for start in np.flatnonzero(may).tolist():
            for length in self._lengths:
                spelt = self._spellings.get(data[start : start + length])
                if spelt and _is_whole(data, start, length, spelt[1]):
                    yield spelt[0], start, length


def scan(files: Iterable[Path], wanted: Wanted) -> Iterator[Trace]:
    """What files hold of the ids; one that is gone by now holds nothing.

    Raises:
        OSError: a file cannot be read.
    """
    for path in files:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            yield from scan_file(file, str(path), wanted)


def scan_file(file: BinaryIO, name: str, wanted: Wanted) -> Iterator[Trace]:
    """What one file holds: in its bytes, and decoded."""
    found: set[str] = set()
    overlap = wanted.overlap
    tail = b""
    while chunk := file.read(_CHUNK):
        found |= wanted.within(tail + chunk)
        tail = (tail + chunk)[-overlap:] if overlap else b""
    if found:
        yield Trace(name, "bytes", frozenset(found))
    file.seek(0)
    for where, ids in _decoded(file, wanted):
        if ids:
            yield Trace(name, where, frozenset(ids))


def _decoded(file: BinaryIO, wanted: Wanted) -> Iterator[tuple[str, set[str]]]:
    """The ids by column of a file that says what it is; nothing of one that is damaged."""
    head = file.read(16)
    file.seek(0)
    try:
        if head.startswith(b"PAR1"):
            yield from _parquet(file, wanted)
        elif head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
            yield from _arrow(file, wanted, stream=head.startswith(b"\xff"))
        elif head.startswith(b"\x93NUMPY"):
            yield "array", _array(np.lib.format.read_array(file, allow_pickle=False), wanted)
        elif head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    content = BytesIO(archive.read(member))
                    for trace in scan_file(content, member, wanted):
                        yield f"{member}: {trace.where}", set(trace.ids)
        elif head.startswith(b"SQLite format 3\0"):
            yield from _sqlite(file.read(), wanted)
        elif head.startswith(b"REDIS"):
            keys = pa.array([k.decode(errors="replace") for k in rdb.strings(file)], pa.string())
            yield "keys", _keys(keys, wanted)
        else:
            for magic, codec in _COMPRESSED.items():
                if head.startswith(magic):
                    content = BytesIO(pa.CompressedInputStream(file, codec).read())
                    for trace in scan_file(content, codec, wanted):
                        yield f"{codec}: {trace.where}", set(trace.ids)
    except (pa.ArrowException, ValueError, EOFError, OSError, zipfile.BadZipFile, sqlite3.Error):
        return  # cut short by a kill, or no such file after all: its bytes were searched


def _parquet(file: BinaryIO, wanted: Wanted) -> Iterator[tuple[str, set[str]]]:
    strings = [c.name for c in pq.read_schema(file) if pa.types.is_string(c.type)]
    # As dictionaries, so that entries that no row uses are seen as well.
    parquet = pq.ParquetFile(file, read_dictionary=strings)
    for number in range(parquet.num_row_groups):
        rows = parquet.read_row_group(number)
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            yield name, set().union(*(wanted.among(chunk) for chunk in column.chunks))


def _arrow(file: BinaryIO, wanted: Wanted, *, stream: bool) -> Iterator[tuple[str, set[str]]]:
    reader = pa.ipc.open_stream(file) if stream else pa.ipc.open_file(file)
    batches = reader if stream else map(reader.get_batch, range(reader.num_record_batches))
    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            yield name, wanted.among(column)


def _array(values: npt.NDArray, wanted: Wanted) -> set[str]:
    if values.dtype.kind not in "SU":
        return set()
    kind = np.bytes_ if values.dtype.kind == "S" else np.str_
    ids = wanted.values.to_pylist()
    spelt = np.array([i.encode() if kind is np.bytes_ else i for i in ids], kind)
    return {i for i, hit in zip(ids, np.isin(spelt, values), strict=True) if hit}


def _sqlite(content: bytes, wanted: Wanted) -> Iterator[tuple[str, set[str]]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - its own name
            names = [c[0] for c in rows.description]
            while values := rows.fetchmany(10_000):
                for name, column in zip(names, zip(*values, strict=True), strict=True):
                    texts = [v for v in column if isinstance(v, str)]
                    yield f"{table}.{name}", wanted.among(pa.array(texts, pa.string()))


def _keys(keys: pa.Array, wanted: Wanted) -> set[str]:
    """Ids that are a key, or what follows the fourth colon of one."""
    parts = pc.split_pattern(keys, ":", max_splits=4)
    long = parts.filter(pc.equal(pc.list_value_length(parts), 5))
    found = wanted.among(keys) | wanted.within("\n".join(keys.to_pylist()).encode())
    return found | (wanted.among(pc.list_element(long, 4)) if len(long) else set())


def _is_whole(data: bytes, start: int, length: int, width: int) -> bool:
    """Whether bytes are a word of their own, or a string whose length stands before it."""
    if width == 0:
        return True
    before = data[max(start - width, 0) : start][::-1]
    after = data[start + length : start + length + width]
    if not (_is_word(before) or _is_word(after)):
        return True
    prefix = int.from_bytes(data[max(start - 4, 0) : start], "little")
    return width == 1 and (prefix == length or data[start - 1 : start] == bytes((length % 256,)))


def _is_word(neighbour: bytes) -> bool:
    """Whether the nearest of some bytes that is not 0 belongs to a word."""
    text = neighbour.lstrip(b"\0")
    return bool(text) and text[0] in _WORD
