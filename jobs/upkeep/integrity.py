"""Reading everything below a home, and comparing it with what its writers recorded."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.base import Contract
from feature_store.contracts.digests import file_sha256
from feature_store.contracts.errors import DermError
from feature_store.contracts.manifests import Artifact
from feature_store.index.build import file_xxh3 as index_digest
from feature_store.index.index import read_manifest
from feature_store.lake import storage
from feature_store.lake.late import LATE, QUARANTINE
from feature_store.online.releases import Releases
from jobs.datasets.registry import simulated_folder
from jobs.engine import guards, kept, presence, skips, spaces, unfinished
from jobs.engine.context import RunContext
from jobs.engine.snapshots import SnapshotStore
from jobs.paths import HomePaths
from jobs.rendering.published import read_published
from jobs.upkeep.forget import load_begun
from models.rankers.export import read_description


class Damage(Contract):
    """Something that is not what was written.

    Attributes:
        where: its path or address.
        found: what is wrong with it.
        repair: the command that makes it again.
    """

    where: str
    found: str
    repair: str


class Look:
    """One look at everything; it counts what it has read."""

    def __init__(self, ctx: RunContext) -> None:
        self.files = self.bytes = 0
        self._ctx, self._root = ctx, ctx.root

    def everything(self) -> Iterator[Damage]:
        """What is damaged, kind by kind."""
        yield from self._records()
        yield from self._manifests()
        yield from self._lake()
        for upstream in self._ctx.pipeline.names:
            yield from self._snapshots(upstream)
        for ranker in self._ctx.pipeline.rankers:
            yield from self._ranker(ranker.name)
        for folder in sorted(HomePaths(self._root).indexes.glob("*/[!.]*")):
            yield from self._index(folder)
        yield from self._releases()
        yield from self._source()

    def _records(self) -> Iterator[Damage]:
        """What a home says of itself beside its manifests."""
        for path, read in self._readers():
            if path.exists():
                self._count(path)
                try:
                    read()
                except DermError as error:
                    yield _damage(path, error, error.hint or "derm bootstrap begins a space anew")

    def _readers(self) -> Iterator[tuple[Path, Callable[[], object]]]:
        root, paths = self._root, HomePaths(self._root)
        yield paths.spaces, partial(spaces.load, root)
        yield paths.kept, partial(kept.load, root)
        yield paths.backfill, partial(unfinished.load, root)
        begun = unfinished.deletion_path(root)
        yield begun, partial(load_begun, begun)
        for path in sorted(root.glob("skipped/*.json")):
            yield path, partial(skips.load, root, path.stem)
        for path in sorted(root.glob("accepted/*.json")):
            yield path, partial(guards.acceptances, root, path.stem)

    def _manifests(self) -> Iterator[Damage]:
        """Each record of a step, and whether what it recorded is there."""
        store = self._ctx.manifests
        for path in sorted(store.root.glob("*-*-*/*.json")):
            self._count(path)
            ds, (step, _, upstream) = path.parent.name, path.stem.partition(".")
            try:
                manifest = store.get(step, ds, upstream or None)
            except DermError as error:
                suffix = f" --upstream {upstream}" if upstream else ""
                yield _damage(path, error, f"derm {step} --ds {ds}{suffix} --force")
                continue
            for artifact in manifest.outputs if manifest else ():
                if problem := presence.problem(self._ctx, artifact):
                    yield Damage(
                        where=f"{artifact.name} of {artifact.ds}",
                        found=problem,
                        repair=presence.remedy(self._ctx, artifact),
                    )

    def _lake(self) -> Iterator[Damage]:
        """The bytes of every file that a version of a table names."""
        lake = self._ctx.lake
        for name in lake.tables():
            for ds in lake.days(name):
                for uri in lake.files(name, ds):
                    try:
                        self.bytes += storage.read_through(uri)
                        self.files += 1
                    except (DermError, OSError, pa.ArrowInvalid) as error:
                        yield _damage(uri, error, self._remedy(name, ds))

    def _remedy(self, table: str, ds: str) -> str:
        if table in (LATE, QUARANTINE):
            return f"derm ingest --ds {ds} --force"
        return presence.remedy(self._ctx, Artifact(name=in_lake(table), ds=ds, digest=""))

    def _snapshots(self, upstream: str) -> Iterator[Damage]:
        store = SnapshotStore(self._root, upstream)
        yield from self._weights(store, f"derm train --ds {{}} --upstream {upstream} --force")

    def _ranker(self, name: str) -> Iterator[Damage]:
        """What a ranker has learned, how it was scored and calibrated, and its exports."""
        paths = HomePaths(self._root)
        for step in ("evaluate", "calibrate"):
            for ds in self._ctx.manifests.days():
                manifest = self._ctx.manifests.get(step, ds, name)
                for made in manifest.outputs if manifest else ():
                    for path in sorted((self._root / made.uri).glob("*.safetensors")):
                        repair = presence.remedy(self._ctx, made)
                        yield from self._compare(path, made.digest, file_sha256, repair)
        weights = paths.ranker("weights", name)
        store = SnapshotStore(self._root, name, root=weights, step="train_ranker")
        yield from self._weights(store, f"derm train_ranker --ds {{}} --ranker {name} --force")
        for folder in sorted(paths.ranker("exports", name).glob("*-*-*/")):
            yield from self._export(folder, _exported_again(folder.name, name))
        pointer = paths.ranker_pointer(name)
        if pointer.exists():
            self._count(pointer)
            current = pointer.read_text().strip()
            if not current or not (pointer.parent / current).is_dir():
                found = f"it names {current!r}, which is not there"
                yield Damage(where=str(pointer), found=found, repair=_exported_again(current, name))

    def _export(self, folder: Path, repair: str) -> Iterator[Damage]:
        """An exported ranker: what is said of it, and its files."""
        try:
            described = read_description(folder)
        except DermError as error:
            yield _damage(folder, error, repair)
            return
        for file, digest in described.files.items():
            yield from self._compare(folder / file, digest, file_sha256, repair)

    def _weights(self, store: SnapshotStore, again: str) -> Iterator[Damage]:
        for folder in sorted(store.root.glob("[!.]*")):
            repair = again.format(folder.name[:10])
            try:
                manifest = store.manifest(folder.name)
            except DermError as error:
                yield _damage(folder, error, repair)
                continue
            for name, digest in manifest.files.items() if manifest else ():
                yield from self._compare(folder / name, digest, file_sha256, repair)

    def _index(self, folder: Path) -> Iterator[Damage]:
        try:
            manifest = read_manifest(folder)
        except DermError as error:
            days = [d for d in self._ctx.manifests.days() if self._made(d, folder)]
            yield _damage(folder, error, _index_again(days[-1] if days else "DAY", folder))
            return
        repair = _index_again(manifest.ds, folder)
        for name, digest in manifest.files.items():
            yield from self._compare(folder / name, digest, index_digest, repair)

    def _made(self, ds: str, folder: Path) -> bool:
        """Whether an index is that of a day."""
        try:
            manifest = self._ctx.manifests.get("index", ds, folder.parent.name)
        except DermError:
            return False
        uri = folder.relative_to(self._root).as_posix()
        return manifest is not None and manifest.outputs[0].uri == uri

    def _releases(self) -> Iterator[Damage]:
        for path in sorted(HomePaths(self._root).releases.glob("*.json")):
            self._count(path)
            try:
                release = Releases.read(path)
            except (DermError, ValueError) as error:
                yield _damage(path, error, "derm restore")
                continue
            if release.release_id != path.stem:
                found = f"release {release.release_id}"
                yield Damage(where=str(path), found=found, repair="derm restore")
        try:
            read_published(self._root)
        except DermError as error:
            yield _damage(HomePaths(self._root).pointer, error, error.hint)

    def _source(self) -> Iterator[Damage]:
        """The simulated world's files, by the checksums of their pages."""
        for path in sorted(simulated_folder(self._root).glob("ds=*/*.parquet")):
            self._count(path)
            try:
                pq.read_table(path, page_checksum_verification=True, partitioning=None)
            except (OSError, pa.ArrowException) as error:
                ds = path.parent.name.removeprefix("ds=")
                yield _damage(path, error, f"derm simulate --ds {ds} --force")

    def _compare(
        self, path: Path, expected: str, digest: Callable[[Path], str], repair: str
    ) -> Iterator[Damage]:
        if not path.exists():
            yield Damage(where=str(path), found="no file", repair=repair)
            return
        self._count(path)
        if (found := digest(path)) != expected:
            yield Damage(where=str(path), found=f"digest {found}, not {expected}", repair=repair)

    def _count(self, path: Path) -> None:
        self.files += 1
        self.bytes += path.stat().st_size


def _damage(where: Path | str, error: Exception, repair: str) -> Damage:
    if isinstance(error, DermError):
        found = " ".join(filter(None, (error.what, error.found)))
    else:
        found = str(error)
    return Damage(where=str(where), found=" ".join(found.split()), repair=repair)


def _exported_again(export: str, ranker: str) -> str:
    return f"derm export_ranker --ds {export[:10] or 'DAY'} --ranker {ranker} --force"


def _index_again(ds: str, folder: Path) -> str:
    return f"derm index --ds {ds} --upstream {folder.parent.name} --force"
