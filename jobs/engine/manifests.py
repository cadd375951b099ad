"""Manifests of finished steps, one JSON file each, written last and whole."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.manifests import Artifact, StepManifest
from feature_store.contracts.sealed import sealed, unsealed


class ManifestStore:
    """The manifests below one folder: `<ds>/<step>[.<upstream>].json`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, step: str, ds: str, upstream: Upstream | None) -> Path:
        """Where the manifest of a step is, or would be."""
        name = f"{step}.{upstream}" if upstream else step
        return self.root / ds / f"{name}.json"

    def get(self, step: str, ds: str, upstream: Upstream | None) -> StepManifest | None:
        """The manifest of a finished step, None when it has not finished.

        Raises:
            ManifestCorrupt: the file is there and is not a manifest of that step and day.
        """
        path = self.path(step, ds, upstream)
        if not path.exists():
            return None
        suffix = f" --upstream {upstream}" if upstream else ""
        hint = f"derm {step} --ds {ds}{suffix} --force"
        try:
            manifest = StepManifest.model_validate_json(unsealed(path, hint=hint))
        except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ManifestCorrupt(
                "a manifest cannot be read", where=str(path), found=str(error), hint=hint
            ) from error
        if (manifest.step, manifest.ds, manifest.upstream) != (step, ds, upstream):
            raise ManifestCorrupt(
                "a manifest is of another step or day",
                where=str(path),
                expected=f"{step} {ds} {upstream or ''}",
                found=f"{manifest.step} {manifest.ds} {manifest.upstream or ''}",
                hint=hint,
            )
        return manifest

    def put(self, manifest: StepManifest) -> Path:
        """Write a manifest so that it is either whole or absent."""
        path = self.path(manifest.step, manifest.ds, manifest.upstream)
        write_atomic(path, sealed(manifest.model_dump_json()))
        return path

    def relabel(
        self, renamed: Iterable[tuple[Artifact, Artifact]], stamps: Mapping[str, str] | None = None
    ) -> int:
        """Give partitions that were rewritten in place their new digests, wherever they are named.

        The rows that are left are those they were, so everything made from them stays current;
        what was made from an earlier content of a partition stays stale.

        Args:
            renamed: each partition as it was, and as it is now.
            stamps: by step, the digest of the recipe that it now answers to, when the layout is
                what changed.

        Returns:
            Manifests that were changed.
        """
        new = {(old.name, old.ds, old.digest): now for old, now in renamed}

        def current(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
            return tuple(new.get((a.name, a.ds, a.digest), a) for a in artifacts)

        changed = 0
        for ds in self.days():
            for manifest in self.of_day(ds):
                relabelled = manifest.model_copy(
                    update={
                        "recipe": (stamps or {}).get(manifest.step, manifest.recipe),
                        "inputs": current(manifest.inputs),
                        "outputs": current(manifest.outputs),
                    }
                )
                if relabelled != manifest:
                    self.put(relabelled)
                    changed += 1
        return changed

    def mark_dropped(self, gone: Callable[[Artifact], bool]) -> None:
        """Record of outputs that nobody is to miss them: they are about to be removed."""
        for ds in self.days():
            for manifest in self.of_day(ds):
                outputs = tuple(
                    a.model_copy(update={"dropped": a.dropped or gone(a)}) for a in manifest.outputs
                )
                if outputs != manifest.outputs:
                    self.put(manifest.model_copy(update={"outputs": outputs}))

    def remove(self, step: str, ds: str, upstream: Upstream | None) -> None:
        """Forget that a step finished; it will run again."""
        self.path(step, ds, upstream).unlink(missing_ok=True)

    def days(self) -> tuple[str, ...]:
        """Days with at least one manifest, oldest first."""
        return tuple(sorted(p.name for p in self.root.glob("*-*-*") if any(p.glob("*.json"))))

    def of_day(self, ds: str) -> Iterator[StepManifest]:
        """The manifests of a day, by name."""
        for path in sorted((self.root / ds).glob("*.json")):
            name, _, upstream = path.stem.partition(".")
            manifest = self.get(name, ds, upstream or None)
            if manifest:
                yield manifest
