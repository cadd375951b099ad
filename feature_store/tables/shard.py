"""One shard of one version, mapped into memory, after every byte of it was read and found right.

Shapes: n ids, R rows of the shard, W bytes of a row.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import DamagedFile, InputError, MissingInput
from feature_store.tables.directory import DEFAULT_ROW, Directory
from feature_store.tables.kernels import Kernel
from feature_store.tables.manifest import (
    TableManifest,
    VersionManifest,
    read_version,
    verified_file,
)
from feature_store.tables.rowwise import RowFormat

# Between reading a manifest and opening its files, a forget may have replaced both.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class MappedTable:
    """The rows of one table that belong to one shard.

    Attributes:
        packed: bytes [R + 1, W]; row 0 is the default row.
    """

    name: str
    form: RowFormat
    directory: Directory
    packed: npt.NDArray[np.uint8]

    @property
    def default(self) -> bytes:
        """The bytes of the default row."""
        return bytes(self.packed[DEFAULT_ROW])

    def find(self, ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray]:
        """Packed rows [n, W] of ids [n], and which of them are known [n]."""
        rows = self.directory.rows_of(ids)
        return self.packed.take(rows, axis=0), rows != DEFAULT_ROW

    def look_up(self, ids: npt.NDArray[np.int64], kernel: Kernel) -> npt.NDArray[np.float32]:
        """Values [n, D] of ids, the default row's for those that are not known."""
        return kernel(self.form, self.packed, self.directory.rows_of(ids))


@dataclass(frozen=True, slots=True)
class ShardVersion:
    """What one shard serves of one version."""

    manifest: VersionManifest
    shard: int
    tables: dict[str, MappedTable]

    @property
    def version(self) -> str:
        """Its name."""
        return self.manifest.version


def open_shard(root: Path, version: str, shard: int, shards: int | None = None) -> ShardVersion:
    """Map one shard of a version; every byte is compared with the manifest first.

    Args:
        shards: how many there must be; None: whatever the version has.

    Raises:
        MissingInput: there is no such version.
        InputError: the version was written for another number of shards.
        DamagedFile, ManifestCorrupt: something is not what was written; it is named with version,
            table, shard and offset.
    """
    manifest = read_version(root, version)
    for attempt in range(_ATTEMPTS):
        _check_modulus(manifest, shard, shards)
        try:
            tables = {t.name: _map(root / version, manifest, t, shard) for t in manifest.tables}
        except DamagedFile:
            again = read_version(root, version)
            if again.revision == manifest.revision or attempt == _ATTEMPTS - 1:
                raise
            manifest = again
        else:
            return ShardVersion(manifest, shard, tables)
    raise AssertionError("the last attempt returns or raises")


def open_dense(root: Path, version: str) -> dict[str, Path]:
    """The dense files of a version by name, each compared with what was written.

    Raises:
        DamagedFile: one is not what was written.
    """
    manifest = read_version(root, version)
    where = f"version {version}, dense weights"
    checked = (
        verified_file(root / version, file, manifest.block_bytes, where) for file in manifest.dense
    )
    return {path.name: path for path in checked}


def check_everything(root: Path, version: str) -> int:
    """Read a whole version, every shard of it; the bytes that were read.

    Raises:
        DermError: what is not as it was written.
    """
    manifest = read_version(root, version)
    for shard in range(manifest.shards):
        open_shard(root, version, shard)
    open_dense(root, version)
    return sum(file.bytes for file in manifest.files())


def _check_modulus(manifest: VersionManifest, shard: int, shards: int | None) -> None:
    if shards is not None and shards != manifest.shards:
        raise InputError(
            "a version was written for another number of shards",
            where=f"version {manifest.version}",
            expected=f"{shards} shards",
            found=f"{manifest.shards}",
            hint="start as many shards as it has, or write it for as many as run",
        )
    if not 0 <= shard < manifest.shards:
        raise MissingInput(
            f"version {manifest.version} has no shard {shard}",
            expected=f"0 to {manifest.shards - 1}",
        )


def _map(folder: Path, manifest: VersionManifest, table: TableManifest, shard: int) -> MappedTable:
    entry, form = table.shards[shard], table.form
    where = f"version {manifest.version}, table {table.name}, shard {shard}"
    if (missing := {"ids", "starts", "rows"} - set(entry.files)) or (
        entry.files["rows"].bytes != (entry.rows + 1) * form.row_bytes
        or entry.files["ids"].bytes != entry.rows * 8
    ):
        raise DamagedFile(
            "the manifest does not fit the files it names",
            where=where,
            expected=f"{entry.rows + 1} rows of {form.row_bytes} bytes, {entry.rows} ids",
            found=f"no {' '.join(sorted(missing))}" if missing else "other sizes",
            hint="write the version again",
        )
    data = {
        part: _mapped(verified_file(folder, file, manifest.block_bytes, where))
        for part, file in entry.files.items()
    }
    directory = Directory(
        np.frombuffer(data["ids"], "<i8"),
        np.frombuffer(data["starts"], "<u4"),
        entry.bucket_bits,
        entry.window,
    )
    directory.check(shard, manifest.shards, where)
    packed = np.frombuffer(data["rows"], np.uint8).reshape(-1, form.row_bytes)
    return MappedTable(table.name, form, directory, packed)


def _mapped(path: Path) -> "mmap.mmap | bytes":
    """The bytes of a file; they stay readable when the file is removed."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
