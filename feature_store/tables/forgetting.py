"""Remove ids from every version: their rows become zeros, their ids nobody's, and it is proved.

Files are not changed under those who have them mapped: a shard's files are written anew under the
next revision, the manifest follows, the old files go. Killed anywhere, the same call finishes it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Entity
from feature_store.contracts.errors import DamagedFile
from feature_store.tables.directory import DEFAULT_ROW, NOBODY, shard_of
from feature_store.tables.manifest import (
    TableManifest,
    TableShard,
    VersionManifest,
    describe_file,
    known_versions,
    read_version,
    verified_file,
)
from feature_store.tables.shard import MappedTable, open_shard
from feature_store.tables.writer import shard_file, write_manifest


@dataclass(frozen=True, slots=True)
class ForgottenRows:
    """What was removed from one table of one version.

    Attributes:
        revision: of the version afterwards; who serves it has to read it anew.
    """

    version: str
    table: str
    rows: int
    revision: int


def forget_ids(
    root: Path, ids: npt.NDArray[np.int64], entity: Entity | None = None
) -> tuple[ForgottenRows, ...]:
    """Zero the rows of ids [n] in every version below a folder, and prove it.

    Args:
        entity: whose ids they are; tables of the other entity are left alone. None: all.

    Returns:
        What was removed; a table that never held one of them is not named.

    Raises:
        DamagedFile: a version is damaged, or an id or a row is found again afterwards.
    """
    found: list[ForgottenRows] = []
    for version in known_versions(root):
        found += _forget_in(root, version, ids, entity)
        _prove(root, version, ids, entity)
    return tuple(found)


def _forget_in(
    root: Path, version: str, ids: npt.NDArray[np.int64], entity: Entity | None
) -> list[ForgottenRows]:
    manifest = read_version(root, version)
    _remove_strays(root / version, manifest)
    counts: dict[str, int] = {}
    fresh = list(manifest.tables)
    for shard in range(manifest.shards):
        mine = ids[shard_of(ids, manifest.shards) == shard]
        if not len(mine):
            continue
        mapped = open_shard(root, version, shard)
        for number, table in enumerate(fresh):
            if not _knows(table, entity):
                continue
            rows = mapped.tables[table.name].directory.rows_of(mine)
            if len(rows := rows[rows != DEFAULT_ROW]):
                counts[table.name] = counts.get(table.name, 0) + len(np.unique(rows))
                entry = _rewritten(root / version, manifest, mapped.tables[table.name], shard, rows)
                fresh[number] = _with_shard(table, shard, entry)
    if not counts:
        return []
    after = manifest.model_copy(update={"tables": tuple(fresh), "revision": manifest.revision + 1})
    write_manifest(root / version, after)
    _remove_strays(root / version, after)
    return [ForgottenRows(version, t, n, after.revision) for t, n in counts.items()]


def _rewritten(
    folder: Path,
    manifest: VersionManifest,
    table: MappedTable,
    shard: int,
    rows: npt.NDArray[np.int64],
) -> TableShard:
    """A shard's files of the next revision, without the rows."""
    entry = next(t for t in manifest.tables if t.name == table.name).shards[shard]
    where = f"version {manifest.version}, table {table.name}, shard {shard}"
    files = dict(entry.files)
    for part, width, offset in (("ids", 8, -1), ("rows", table.form.row_bytes, 0)):
        source = verified_file(folder, entry.files[part], manifest.block_bytes, where)
        target = shard_file(folder / table.name, shard, manifest.revision + 1, part)
        shutil.copyfile(source, target)
        blank = NOBODY.to_bytes(8, "little", signed=True) if part == "ids" else bytes(width)
        with target.open("r+b") as file:
            for row in np.unique(rows).tolist():
                file.seek((row + offset) * width)
                file.write(blank)
        files[part] = describe_file(folder, target, manifest.block_bytes)
    return entry.model_copy(update={"files": files})


def _with_shard(table: TableManifest, shard: int, entry: TableShard) -> TableManifest:
    shards = tuple(entry if n == shard else s for n, s in enumerate(table.shards))
    return table.model_copy(update={"shards": shards})


def _remove_strays(folder: Path, manifest: VersionManifest) -> None:
    """Remove files that the manifest does not name: of the revision before, or of a killed call."""
    named = {folder / file.path for file in manifest.files()}
    for table in manifest.tables:
        for path in (folder / table.name).iterdir():
            if path not in named:
                path.unlink()


def _knows(table: TableManifest, entity: Entity | None) -> bool:
    """Whether a table may hold ids of an entity."""
    return entity is None or table.entity in (entity, "")


def _prove(root: Path, version: str, ids: npt.NDArray[np.int64], entity: Entity | None) -> None:
    """Read every id of a version, whatever its place, and every row that was nobody's.

    Raises:
        DamagedFile: an id is still there, or what stands in its row is not zeros.
    """
    manifest = read_version(root, version)
    for shard in range(manifest.shards):
        mapped = open_shard(root, version, shard)
        for entry in manifest.tables:
            if not _knows(entry, entity):
                continue
            table = mapped.tables[entry.name]
            held = table.directory.ids
            nobody = np.flatnonzero(held == NOBODY) + 1
            if np.isin(held, ids).any() or table.packed[nobody].any():
                raise DamagedFile(
                    "a forgotten id, or its row, is still there",
                    where=f"version {version}, table {table.name}, shard {shard}",
                    hint="run the same command again",
                )
