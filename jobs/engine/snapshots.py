"""Model snapshots on disk: `snapshots/<upstream>/<snapshot_id>/`, safetensors and a manifest.

A snapshot is written into a draft folder and renamed, so it is either whole or absent. The draft
also holds the resumable checkpoint of the training that is making it.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Upstream
from feature_store.contracts.digests import content_digest, file_sha256
from feature_store.contracts.errors import ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import Artifact, SnapshotManifest
from feature_store.contracts.sealed import sealed, unsealed
from jobs.paths import HomePaths
from models.training.checkpoint import Tensors, read_tensors, write_tensors

_MANIFEST = "manifest.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
# In a draft that a forced attempt has begun: the repair that it is part of, if any.
_ANEW = "anew"


class SnapshotStore:
    """The snapshots of one upstream, or of one ranker, below the home.

    Args:
        root: the folder they are in; None: that of the upstream's snapshots.
        step: what makes them.
    """

    def __init__(
        self, home: Path, upstream: Upstream, *, root: Path | None = None, step: str = "train"
    ) -> None:
        self.root = root or HomePaths(home).snapshots(upstream)
        self.upstream, self._step = upstream, step

    def folder(self, snapshot_id: str) -> Path:
        """Where a snapshot is, or would be."""
        return self.root / snapshot_id

    def draft(self, snapshot_id: str) -> Path:
        """Where a snapshot is being made; no reader looks there."""
        return self.root / f".{snapshot_id}.draft"

    def manifest(self, snapshot_id: str) -> SnapshotManifest | None:
        """The manifest of a snapshot, None when there is no such snapshot.

        Raises:
            ManifestCorrupt: the folder is there and its manifest cannot be trusted.
        """
        folder = self.folder(snapshot_id)
        return self._manifest(folder, snapshot_id) if folder.exists() else None

    def draft_manifest(self, snapshot_id: str) -> SnapshotManifest | None:
        """The manifest of a complete draft, None when there is none."""
        draft = self.draft(snapshot_id)
        return self._manifest(draft, snapshot_id) if (draft / _MANIFEST).exists() else None

    def _manifest(self, folder: Path, snapshot_id: str) -> SnapshotManifest:
        path = folder / _MANIFEST
        try:
            manifest = SnapshotManifest.model_validate_json(
                unsealed(path, hint=self._hint(snapshot_id))
            )
        except (OSError, ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ManifestCorrupt(
                "a snapshot's manifest cannot be read",
                where=str(path),
                found=str(error),
                hint=self._hint(snapshot_id),
            ) from error
        if (manifest.snapshot_id, manifest.upstream) != (snapshot_id, self.upstream):
            raise ManifestCorrupt(
                "a snapshot's manifest is of another snapshot",
                where=str(path),
                expected=f"{self.upstream} {snapshot_id}",
                found=f"{manifest.upstream} {manifest.snapshot_id}",
                hint=self._hint(snapshot_id),
            )
        return manifest

    def of(self, artifact: Artifact) -> SnapshotManifest:
        """The manifest of the snapshot that a step recorded.

        Raises:
            MissingInput: the snapshot is gone.
            ManifestCorrupt: it is there and is not what was recorded.
        """
        snapshot_id = Path(artifact.uri).name
        manifest = self.manifest(snapshot_id)
        if manifest is None:
            raise MissingInput(
                f"snapshot {snapshot_id} of {self.upstream} is not there",
                where=str(self.folder(snapshot_id)),
                expected="the folder that the train step recorded",
                found="no such folder",
                hint=self._hint(artifact.ds),
            )
        if weights_digest(manifest) != artifact.digest:
            raise ManifestCorrupt(
                "a snapshot is not the one that was recorded",
                where=str(self.folder(snapshot_id)),
                expected=artifact.digest,
                found=weights_digest(manifest),
                hint=self._hint(snapshot_id),
            )
        return manifest

    def read(self, manifest: SnapshotManifest, name: str) -> Tensors:
        """The tensors of one file of a snapshot, after its checksum was compared.

        Raises:
            ManifestCorrupt: the file is missing or is not the one that was written.
        """
        path = self.folder(manifest.snapshot_id) / name
        found = file_sha256(path) if path.exists() else "no file"
        if found != manifest.files.get(name):
            raise ManifestCorrupt(
                "a file of a snapshot is damaged",
                where=str(path),
                expected=str(manifest.files.get(name)),
                found=found,
                hint=self._hint(manifest.snapshot_id),
            )
        try:
            return read_tensors(path)[0]
        except SafetensorError as error:
            raise ManifestCorrupt(
                "a file of a snapshot cannot be read",
                where=str(path),
                found=str(error),
                hint=self._hint(manifest.snapshot_id),
            ) from error

    def write_draft(self, manifest: SnapshotManifest, files: Mapping[str, Tensors]) -> None:
        """Complete a draft: files, then the manifest with their checksums."""
        draft = self.draft(manifest.snapshot_id)
        draft.mkdir(parents=True, exist_ok=True)
        for name, tensors in files.items():
            write_tensors(draft / name, dict(tensors))
        digests = {name: file_sha256(draft / name) for name in sorted(files)}
        complete = manifest.model_copy(update={"files": digests})
        write_atomic(draft / _MANIFEST, sealed(complete.model_dump_json()))
        for name in (CHECKPOINT, BEST):
            (draft / name).unlink(missing_ok=True)

    def begin_anew(self, snapshot_id: str, repair: str) -> None:
        """Discard what earlier attempts have left of a draft, but for those of the same repair."""
        draft = self.draft(snapshot_id)
        mark = draft / _ANEW
        if repair and mark.exists() and mark.read_text() == repair:
            return
        self.discard(snapshot_id)
        draft.mkdir(parents=True)
        mark.write_text(repair)

    def promote(self, snapshot_id: str) -> None:
        """Make a complete draft visible, in the place of what was there."""
        draft, folder = self.draft(snapshot_id), self.folder(snapshot_id)
        (draft / _ANEW).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)

    def discard(self, snapshot_id: str) -> None:
        """Remove a draft, with its checkpoint."""
        shutil.rmtree(self.draft(snapshot_id), ignore_errors=True)

    def _hint(self, snapshot_id: str) -> str:
        return f"derm {self._step} --ds {snapshot_id[:10]} --upstream {self.upstream} --force"


def weights_digest(manifest: SnapshotManifest) -> str:
    """Digest of the content of a snapshot: its files, whatever its id."""
    return content_digest(*(f"{k}={v}" for k, v in sorted(manifest.files.items())))
