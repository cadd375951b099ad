"""Parquet files that are written but not yet part of a table, and reading files of one.

Needs pyarrow only: Spark tasks import this module, and never touch the Delta log.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from feature_store.contracts.errors import ContractViolation, MissingInput
from feature_store.contracts.tables import Table
from feature_store.lake.content import Digests, HashedStream
from feature_store.lake.schemas import arrow_schema
from feature_store.lake.storage import Storage, open_parquet

_GROUP_BYTES = 32 << 20
_NO_STATISTICS = ("binary", "string", "int32")


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedFile:
    """A Parquet file that is written but not committed.

    Attributes:
        path: relative to the table's root.
        digest: of the rows, independent of file names and Parquet details.
        stats: Delta statistics as JSON.
    """

    path: str
    ds: str
    bucket: int | None
    rows: int
    size: int
    digest: str
    stats: str
    modified_ms: int


def stage_file(
    root: Storage, table: Table, ds: str, data: pa.Table, *, bucket: int | None = None
) -> StagedFile:
    """Write rows as one Parquet file below a table's root, invisible until committed.

    Raises:
        ContractViolation: the rows do not have the declared schema.
    """
    return stage_parts(root, table, ds, [data], bucket=bucket)


def stage_parts(
    root: Storage, table: Table, ds: str, parts: Iterable[pa.Table], *, bucket: int | None = None
) -> StagedFile:
    """Write rows that arrive part by part as one Parquet file, like `stage_file`.

    Raises:
        ContractViolation: a part does not have the declared schema.
    """
    schema, digest = arrow_schema(table), RowsDigest(arrow_schema(table))
    folder = f"ds={ds}" if bucket is None else f"ds={ds}/bucket={bucket}"
    footer = list[pq.FileMetaData]()
    draft = root.uri(table.name, folder, f"{uuid.uuid4().hex}.draft")
    options = parquet_options(table) | {"metadata_collector": footer}
    with root.create(draft) as file:
        stream = HashedStream(file)
        with pq.ParquetWriter(stream, schema, **options) as writer:
            for part in parts:
                _check_schema(table, ds, part)
                digest.update(part)
                writer.write_table(part, row_group_size=_group_rows(part))
    # Digests are the name, so that the log alone says what a partition holds.
    relative = f"{folder}/{Digests(digest.hexdigest(), stream.hexdigest()).name()}"
    root.move(draft, root.uri(table.name, relative))
    return StagedFile(
        path=relative,
        ds=ds,
        bucket=bucket,
        rows=digest.rows,
        size=stream.size,
        digest=digest.hexdigest(),
        stats=_delta_stats(footer[0]),
        modified_ms=int(time.time() * 1000),
    )


def read_files(
    files: Sequence[str], table: Table, columns: Sequence[str] | None = None
) -> pa.Table:
    """All rows of some files of a table, file after file."""
    parts = list(read_parts(files, table, columns))
    return pa.concat_tables(parts) if parts else _projected(table, columns).empty_table()


def read_parts(
    files: Sequence[str],
    table: Table,
    columns: Sequence[str] | None = None,
    *,
    group: int | None = None,
) -> Iterator[pa.Table]:
    """The rows of some files of a table, a row group at a time.

    Args:
        group: only this row group of each file.

    Raises:
        MissingInput: a file is gone or cut short.
    """
    schema = _projected(table, columns)
    for file in files:
        try:
            with open_parquet(file) as parquet:
                for number in range(parquet.num_row_groups) if group is None else (group,):
                    part = parquet.read_row_group(number, schema.names, use_threads=False)
                    yield part.cast(schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise MissingInput(
                "a file of the lake cannot be read",
                where=file,
                found=str(error),
                hint="derm verify names the command that makes it again",
            ) from error


def _projected(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    schema = arrow_schema(table)
    return schema if columns is None else pa.schema([schema.field(c) for c in columns])


def rows_digest(data: pa.Table) -> str:
    """Digest of rows and their order, whatever the chunks they arrived in."""
    digest = RowsDigest(data.schema)
    digest.update(data)
    return digest.hexdigest()


def combined_digest(files: Iterable[tuple[int | None, int, str]]) -> str:
    """Digest of a partition from (bucket, rows, digest) of each of its files."""
    state = xxhash.xxh3_128()
    for bucket, rows, digest in sorted(files, key=lambda f: (f[0] or 0, f[2])):
        state.update(f"{bucket}:{rows}:{digest};".encode())
    return state.hexdigest()


def sort_rows(data: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Rows ordered by `keys`, ascending."""
    order = pc.sort_indices(data, sort_keys=[(k, "ascending") for k in keys])
    return data.take(order)


def _check_schema(table: Table, ds: str, data: pa.Table) -> None:
    expected = arrow_schema(table)
    if not data.schema.equals(expected):
        raise ContractViolation(
            f"rows for {table.name} do not have its schema",
            where=f"day {ds}",
            expected=expected.to_string(),
            found=data.schema.to_string(),
        )
    for column in table.columns:
        if not column.nullable and (nulls := data.column(column.name).null_count):
            raise ContractViolation(
                f"rows for {table.name} have nulls where none are allowed",
                where=f"day {ds}, column {column.name}",
                expected="no nulls",
                found=f"{nulls} of {data.num_rows} rows",
            )


def parquet_options(table: Table) -> dict[str, object]:
    """How a table's files are encoded.

    Packed vectors do not compress: 2.5 times the CPU for 7 % of the size. Keys of embedding
    tables hardly repeat within a file, so a dictionary of them is thrown away again. Strings have
    no statistics: the log keeps those for weeks, and ids of people do not belong there. Nor have
    int32 columns: counts fill dozens of them, and nobody looks for a value.
    """
    strings = [c.name for c in table.columns if c.dtype == "string"]
    return {
        "compression": {c.name: "none" if c.dtype == "binary" else "zstd" for c in table.columns},
        "use_dictionary": [c for c in strings if not (table.bucketed and c in table.key)],
        "write_statistics": [c.name for c in table.columns if c.dtype not in _NO_STATISTICS],
    }


def _group_rows(data: pa.Table) -> int:
    """Rows of a row group: merge holds one at a time, whatever the size of the pool."""
    return max(1, int(_GROUP_BYTES * len(data) // max(data.nbytes, 1)))


class RowsDigest:
    """Digest of rows and their order, fed part by part; where the parts end does not matter."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        self._columns = [_ColumnDigest(field) for field in schema]

    def update(self, data: pa.Table) -> None:
        """Add rows."""
        self.rows += len(data)
        for digest, column in zip(self._columns, data.columns, strict=True):
            for chunk in column.chunks:
                digest.update(chunk)

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        state = xxhash.xxh3_128(f"{self.rows};".encode())
        for column in self._columns:
            state.update(column.digest())
        return state.hexdigest()


class _ColumnDigest:
    """Digest of a column: its validity (where nulls may be), its lengths, its bytes."""

    def __init__(self, field: pa.Field) -> None:
        self._field = field
        self._validity, self._lengths = xxhash.xxh3_128(), xxhash.xxh3_128()
        self._content = xxhash.xxh3_128()
        self._inner = _ColumnDigest(field.type.value_field) if _is_list(field.type) else None

    def update(self, array: pa.Array) -> None:
        if self._field.nullable:
            self._validity.update(_bytes(array.is_valid().cast(pa.uint8())))
            array = array.drop_null() if array.null_count else array
        if self._inner:
            self._lengths.update(_bytes(pc.list_value_length(array)))
            self._inner.update(array.flatten())
        elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
            self._lengths.update(_bytes(pc.binary_length(array)))
            self._content.update(_text(array))
        else:
            flat = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
            self._content.update(_bytes(flat))

    def digest(self) -> bytes:
        inner = self._inner.digest() if self._inner else b""
        states = (self._validity, self._lengths, self._content)
        name = f"{self._field.name}:{self._field.type};".encode()
        return name + b"".join(s.digest() for s in states) + inner


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype))


def _bytes(array: pa.Array) -> memoryview:
    """The values of a fixed-width array without nulls, without copying."""
    width = array.type.bit_width // 8
    data = memoryview(array.buffers()[1] or b"")
    return data[array.offset * width : (array.offset + len(array)) * width]


def _text(array: pa.Array) -> memoryview:
    """The concatenated values of a string or binary array without nulls, without copying."""
    if len(array) == 0:
        return memoryview(b"")
    _, offsets, data = array.buffers()
    positions = memoryview(offsets).cast("i")
    return memoryview(data or b"")[positions[array.offset] : positions[array.offset + len(array)]]


def _delta_stats(metadata: pq.FileMetaData) -> str:
    """Delta statistics from a Parquet footer: row count, and finite minima and maxima."""
    stats: dict[str, object] = {"numRecords": metadata.num_rows}
    low: dict[str, object] = {}
    high: dict[str, object] = {}
    nulls: dict[str, int] = {}
    for column in range(metadata.num_columns):
        chunks = [metadata.row_group(g).column(column) for g in range(metadata.num_row_groups)]
        name = chunks[0].path_in_schema if chunks else ""
        found = [c.statistics for c in chunks]
        if not found or "." in name or any(s is None or not s.has_min_max for s in found):
            continue
        if isinstance(found[0].min, str | int) and not isinstance(found[0].min, bool):
            low[name] = min(s.min for s in found)
            high[name] = max(s.max for s in found)
        nulls[name] = sum(s.null_count or 0 for s in found)
    return json.dumps({**stats, "minValues": low, "maxValues": high, "nullCount": nulls})
