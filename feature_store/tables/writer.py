"""Write a version of the tables: streamed, sharded, whole or not at all.

Rows may come in any order and need not fit into memory: each block is packed, goes to the spool of
its shard, and a shard is put in order at the end with only its ids in memory.
Shapes: N rows of a block, D values of a row.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Entity
from feature_store.contracts.errors import ContractViolation, InputError, StoreError
from feature_store.contracts.hashing import mix64
from feature_store.contracts.sealed import sealed
from feature_store.tables.directory import NOBODY, Directory, shard_of
from feature_store.tables.manifest import (
    BLOCK_BYTES,
    MANIFEST,
    TableFile,
    TableManifest,
    TableShard,
    VersionManifest,
    check_table_name,
    check_version,
    describe_file,
)
from feature_store.tables.rowwise import RowFormat

_COPIED_ROWS = 1 << 16


class VersionWriter:
    """Writes one version; leaving the `with` block makes it visible, an exception removes it.

    Args:
        root: the folder of all versions.
        shards: how many processes will serve it.
        block_bytes: of which each has a checksum.

    Raises:
        InputError: the version is there already, or another process is writing it.
        StoreError: the disk is full, or refuses.
    """

    def __init__(
        self, root: Path, *, version: str, shards: int, block_bytes: int = BLOCK_BYTES
    ) -> None:
        try:
            self.version = check_version(version)
        except ValueError as error:
            raise InputError("a version cannot have this name", found=str(error)) from error
        if shards < 1:
            raise InputError("a version has at least one shard", found=str(shards))
        self.shards, self.block_bytes = shards, block_bytes
        self._final, self.folder = root / version, root / f".{version}.draft"
        self._lock_path = root / f".{version}.lock"
        self._tables: list[TableManifest] = []
        self._dense: list[TableFile] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with _typed(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._open.enter_context(_sole_writer(self._lock_path, self.version))
        if (self._final / MANIFEST).exists():
            self._open.close()
            raise InputError(
                f"version {self.version} is there already",
                where=str(self._final),
                hint="versions never change: choose another name",
            )
        with _typed(self.folder):
            # Nobody else writes it, so a draft is that of a writer who died.
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            try:
                if error is None:
                    self._commit()
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
                self._lock_path.unlink(missing_ok=True)

    def table(
        self,
        name: str,
        *,
        bits: int,
        dim: int,
        default: npt.NDArray,
        entity: Entity | Literal[""] = "",
    ) -> "TableWriter":
        """A table of this version, to be filled in a `with` block of its own.

        Args:
            default: [D], what an id that is not in the table looks up.
            entity: whose ids they are; `forget` goes by it.

        Raises:
            InputError: the name is none, or there is such a table already.
            ContractViolation: rows cannot be packed like this.
        """
        try:
            check_table_name(name)
        except ValueError as error:
            raise InputError("a table cannot have this name", found=str(error)) from error
        # The folder is made at once, so that a second table of one name finds it.
        with _typed(self.folder):
            try:
                (self.folder / name).mkdir()
            except FileExistsError as error:
                raise InputError(
                    f"two tables of version {self.version} have the name {name}",
                    hint="a table has one owner: give the second one a name of its own",
                ) from error
        return TableWriter(self, name, entity, RowFormat(bits=bits, dim=dim), default)

    def dense(self, source: Path) -> None:
        """Take a file of the ranker that was trained with these tables into the version.

        Raises:
            InputError: two files have one name.
        """
        target = self.folder / "dense" / source.name
        if target.exists():
            raise InputError("two dense files have one name", found=source.name)
        with _typed(target):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
            sync(target)
        self._dense.append(describe_file(self.folder, target, self.block_bytes))

    def add(self, table: TableManifest) -> None:
        """Take a finished table into the manifest."""
        self._tables.append(table)

    def _commit(self) -> None:
        unfinished = {p.name for p in self.folder.iterdir()} - {t.name for t in self._tables}
        if unfinished - {"dense"}:
            raise InputError(
                "a table was begun and not finished",
                where=f"version {self.version}",
                found=" ".join(sorted(unfinished - {"dense"})),
                hint="fill each table in a `with` block",
            )
        manifest = VersionManifest(
            version=self.version,
            shards=self.shards,
            block_bytes=self.block_bytes,
            tables=tuple(self._tables),
            dense=tuple(self._dense),
        )
        with _typed(self._final):
            write_manifest(self.folder, manifest)
            # A folder of this name has no manifest: it is no version.
            shutil.rmtree(self._final, ignore_errors=True)
            self.folder.rename(self._final)
            sync(self._final.parent)


class TableWriter:
    """Takes the rows of one table, in any order."""

    def __init__(
        self,
        version: VersionWriter,
        name: str,
        entity: Entity | Literal[""],
        form: RowFormat,
        default: npt.NDArray,
    ) -> None:
        self._version, self._name, self._entity, self._form = version, name, entity, form
        self._where = f"version {version.version}, table {name}"
        self._folder = version.folder / name
        self._default = form.encode(np.asarray(default)[None], where=f"{self._where}, default row")
        self._spools = ExitStack()
        self._files: list[tuple[BinaryIO, BinaryIO]] = []
        self._rows = 0

    def __enter__(self) -> Self:
        with _typed(self._folder):
            for shard in range(self._version.shards):
                pair = [self._spool(shard, part).open("wb") for part in ("ids", "rows")]
                self._files.append((pair[0], pair[1]))
                for file in pair:
                    self._spools.enter_context(file)
        return self

    def add(self, ids: npt.NDArray[np.int64], vectors: npt.NDArray) -> None:
        """Take rows.

        Args:
            ids: [N], each once in the whole table.
            vectors: [N, D], any float dtype.

        Raises:
            ContractViolation: counts or types differ, an id is nobody's, or a row is not finite.
            StoreError: the disk is full.
        """
        if ids.dtype != np.int64 or ids.shape != vectors.shape[:1]:
            raise ContractViolation(
                "rows need an int64 id each",
                where=self._where,
                expected=f"int64 [{len(vectors)}]",
                found=f"{ids.dtype} {list(ids.shape)}",
            )
        if (ids == NOBODY).any():
            raise ContractViolation("-2^63 is nobody's id", where=self._where)
        packed = self._form.encode(vectors, where=f"{self._where}, row", first=self._rows)
        shard = shard_of(ids, self._version.shards)
        order = np.argsort(shard, kind="stable")
        ends = np.cumsum(np.bincount(shard, minlength=self._version.shards))
        with _typed(self._folder):
            for files, part in zip(self._files, np.split(order, ends[:-1]), strict=True):
                files[0].write(ids[part].astype("<i8", copy=False).tobytes())
                files[1].write(packed[part].tobytes())
        self._rows += len(ids)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            with suppress(OSError):  # a full disk is full for what was buffered too
                self._spools.close()
            return
        with _typed(self._folder):
            self._spools.close()  # what is buffered is written now
            shards = tuple(self._finish(shard) for shard in range(self._version.shards))
        self._version.add(
            TableManifest(
                name=self._name,
                entity=self._entity,
                bits=self._form.bits,
                dim=self._form.dim,
                rows=self._rows,
                shards=shards,
            )
        )

    def _finish(self, shard: int) -> TableShard:
        """Put the spool of a shard in order."""
        where = f"{self._where}, shard {shard}"
        ids = np.fromfile(self._spool(shard, "ids"), "<i8")
        order = np.argsort(mix64(ids))
        ids = ids[order]
        if len(doubled := ids[1:][ids[1:] == ids[:-1]]):
            raise ContractViolation(
                "an id has two rows",
                where=where,
                found=f"{len(doubled)}, such as {doubled[0]}",
            )
        directory = Directory.of(ids, where)
        paths = {
            part: shard_file(self._folder, shard, 0, part) for part in ("ids", "starts", "rows")
        }
        ids.tofile(paths["ids"])
        directory.starts.tofile(paths["starts"])
        with paths["rows"].open("wb") as file:
            file.write(self._default.tobytes())
            for start in range(0, len(order), _COPIED_ROWS):
                file.write(self._packed(shard, order[start : start + _COPIED_ROWS]))
        for part, path in paths.items():
            sync(path)
            self._spool(shard, part).unlink(missing_ok=True)
        folder, block_bytes = self._version.folder, self._version.block_bytes
        return TableShard(
            rows=len(ids),
            bucket_bits=directory.bucket_bits,
            window=directory.window,
            files={p: describe_file(folder, path, block_bytes) for p, path in paths.items()},
        )

    def _packed(self, shard: int, rows: npt.NDArray[np.int64]) -> bytes:
        """Some rows of a spool. Mapped anew each time: pages that were read are let go."""
        spool = np.memmap(self._spool(shard, "rows"), np.uint8, "r")
        return spool.reshape(-1, self._form.row_bytes)[rows].tobytes()

    def _spool(self, shard: int, part: str) -> Path:
        return self._folder / f"{shard:05d}.spool.{part}"


def shard_file(folder: Path, shard: int, revision: int, part: str) -> Path:
    """Where a part of a shard is, below its table's folder."""
    return folder / f"{shard:05d}.{revision}.{part}"


def write_manifest(folder: Path, manifest: VersionManifest) -> None:
    """Write or replace the manifest of a version, whole."""
    draft = folder / f".{MANIFEST}"
    draft.write_text(sealed(manifest.model_dump_json()))
    sync(draft)
    draft.replace(folder / MANIFEST)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _sole_writer(lock: Path, version: str) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing version {version}",
                where=str(lock),
                hint="a version has one writer: wait for it, or choose another name",
            ) from error
        yield


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            "a version of the tables could not be written",
            where=str(path),
            found=str(error),
            hint="free space or repair the permissions and write it again: no part of it is seen",
        ) from error
