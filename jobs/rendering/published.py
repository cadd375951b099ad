"""What readers see now: the release that the pointer names, and when it was made."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.manifests import Release
from feature_store.contracts.sealed import unsealed
from jobs.paths import HomePaths


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The current release, and the time its manifest was written (UTC)."""

    release: Release
    released_at: dt.datetime

    def age_hours(self, now: dt.datetime) -> float:
        """Hours since the release was made."""
        return (now - self.released_at).total_seconds() / 3600


def read_published(root: Path) -> Published | None:
    """The current release of a home; None when nothing was ever published.

    Raises:
        ManifestCorrupt: the pointer names a release that is not there or cannot be read.
    """
    pointer = HomePaths(root).pointer
    if not pointer.exists():
        return None
    release_id = pointer.read_text().strip()
    path = HomePaths(root).release(release_id)
    try:
        release = _named(release_id, unsealed(path))
    except (OSError, ValueError, ManifestCorrupt) as error:
        raise ManifestCorrupt(
            "the current release cannot be read",
            where=str(path),
            expected=f"the manifest of release {release_id}, which {pointer} names",
            found=str(error),
            hint="derm restore",
        ) from error
    written = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    return Published(release=release, released_at=written.replace(microsecond=0))


def _named(release_id: str, text: str) -> Release:
    release = Release.model_validate_json(text)
    if release.release_id != release_id:
        raise ValueError(f"it is release {release.release_id}")
    return release
