"""What a version of served tables consists of, and how it is trusted (docs/specs/id_tables.md)."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from feature_store.contracts.base import Contract, Entity
from feature_store.contracts.errors import DamagedFile, ManifestCorrupt, MissingInput
from feature_store.contracts.sealed import unsealed
from feature_store.tables.rowwise import RowFormat

FORMAT = 1
MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 22
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,47}")


def check_version(version: str) -> str:
    """Return a version's name unchanged when it may be a folder and travel in a request.

    Raises:
        ValueError: it may not.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"expected letters, digits, '.', '_' and '-', at most 64: {version!r}")
    return version


def check_table_name(name: str) -> str:
    """Return a table's name unchanged when it is one.

    Raises:
        ValueError: it is none.
    """
    if not _TABLE.fullmatch(name):
        raise ValueError(f"expected lower case letters, digits and '_', at most 48: {name!r}")
    return name


Version = Annotated[str, AfterValidator(check_version)]
TableName = Annotated[str, AfterValidator(check_table_name)]


class TableFile(Contract):
    """A file of a version.

    Attributes:
        path: relative to the version's folder.
        blocks: SHA-256 of each block in order, hexadecimal.
    """

    path: str
    bytes: int
    blocks: tuple[str, ...]


class TableShard(Contract):
    """One shard of a table.

    Attributes:
        rows: ids; the default row is not counted.
        bucket_bits: the first bits of a mixed id choose a bucket.
        window: ids of the fullest bucket.
        files: "ids", "starts" and "rows".
    """

    rows: int
    bucket_bits: int
    window: int
    files: dict[str, TableFile]


class TableManifest(Contract):
    """One table; `rows` are those of all shards.

    Attributes:
        entity: whose ids they are, `user` or `pin`; empty: not said, so that either may be.
    """

    name: TableName
    entity: Entity | Literal[""] = ""
    bits: int
    dim: int
    rows: int
    shards: tuple[TableShard, ...]

    @property
    def form(self) -> RowFormat:
        """How its rows are packed."""
        return RowFormat(bits=self.bits, dim=self.dim)


class VersionManifest(Contract):
    """Everything of one version. Tables and dense weights are right together only.

    Attributes:
        revision: how often ids were forgotten in it.
        dense: files of the ranker that was trained with these tables.
    """

    format: int = FORMAT
    version: Version
    shards: int = Field(ge=1)
    revision: int = 0
    block_bytes: int = BLOCK_BYTES
    tables: tuple[TableManifest, ...]
    dense: tuple[TableFile, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        names = [t.name for t in self.tables]
        if len(set(names)) < len(names):
            raise ValueError(f"a table is there twice: {' '.join(names)}")
        if short := [t.name for t in self.tables if len(t.shards) != self.shards]:
            raise ValueError(f"expected {self.shards} shards of each table: {' '.join(short)}")
        if self.format != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {self.format}")
        return self

    def files(self) -> Iterator[TableFile]:
        """Every file of the version."""
        for table in self.tables:
            for shard in table.shards:
                yield from shard.files.values()
        yield from self.dense


def read_version(root: Path, version: str) -> VersionManifest:
    """The manifest of a version.

    Raises:
        MissingInput: there is no such version.
        ManifestCorrupt: it was changed, names another version, or is of another format.
    """
    path = root / version / MANIFEST
    hint = "write the version again; versions that are there already stay as they are"
    try:
        text = unsealed(path, hint=hint)
        found = VersionManifest.model_validate_json(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        known = " ".join(known_versions(root)) or "none"
        raise MissingInput(
            f"there is no version {version} of the tables", where=str(root), found=known
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ManifestCorrupt(
            "the manifest of a version cannot be read",
            where=str(path),
            found=str(error),
            hint=hint,
        ) from error
    if found.version != version:
        raise ManifestCorrupt(
            "a version's folder holds another version",
            where=str(path),
            expected=version,
            found=found.version,
            hint="do not rename or copy versions: write them under their own names",
        )
    return found


def known_versions(root: Path) -> tuple[str, ...]:
    """The versions below a folder that are whole, by name."""
    found = (p.parent.name for p in root.glob(f"*/{MANIFEST}"))
    return tuple(sorted(v for v in found if _VERSION.fullmatch(v)))


def block_digests(path: Path, block_bytes: int) -> Iterator[str]:
    """SHA-256 of each block of a file, in order."""
    with path.open("rb") as file:
        while block := file.read(block_bytes):
            yield hashlib.sha256(block).hexdigest()


def describe_file(folder: Path, path: Path, block_bytes: int) -> TableFile:
    """A file as the manifest of the version in `folder` names it."""
    return TableFile(
        path=path.relative_to(folder).as_posix(),
        bytes=path.stat().st_size,
        blocks=tuple(block_digests(path, block_bytes)),
    )


def verified_file(folder: Path, file: TableFile, block_bytes: int, where: str) -> Path:
    """Read a file once and compare it with what was written; its path.

    Args:
        where: version, table and shard, for what is said of a damaged file.

    Raises:
        DamagedFile: it is missing, has another size, or a block differs: the offset is named.
    """
    path = folder / file.path
    hint = "copy the file again from where the version was written, or write the version again"
    try:
        size = path.stat().st_size
        if size == file.bytes:
            found = tuple(block_digests(path, block_bytes))
    except OSError as error:
        raise DamagedFile(
            "a file of a table cannot be read",
            where=f"{where}, {path}",
            found=str(error),
            hint=hint,
        ) from error
    if size != file.bytes:
        raise DamagedFile(
            "a file of a table has another size than was written",
            where=f"{where}, {path}, offset {min(size, file.bytes)}",
            expected=f"{file.bytes} bytes",
            found=f"{size} bytes",
            hint=hint,
        )
    if found != file.blocks:
        number = next(
            (n for n, (a, b) in enumerate(zip(found, file.blocks, strict=False)) if a != b),
            min(len(found), len(file.blocks)),
        )
        raise DamagedFile(
            "a file of a table does not hold what was written",
            where=f"{where}, {path}, offset {number * block_bytes} "
            f"to {min((number + 1) * block_bytes, size)}",
            expected=f"SHA-256 {file.blocks[number] if number < len(file.blocks) else 'none'}",
            found=found[number] if number < len(found) else "none",
            hint=hint,
        )
    return path
