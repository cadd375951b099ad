"""Days that somebody declared to be without events: `skipped/<ds>.json` below the home.

A day that is skipped reads no source: nobody was seen on it, users and Pins are those of the day
before. The record takes the place of the source in the lineage, so that taking it back makes the
day stale like any change of its data.
"""

from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.artifacts import SOURCE
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Contract, Day
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.manifests import Artifact
from jobs.paths import HomePaths


class Skip(Contract):
    """A day without events, why, and since when that is known (UTC)."""

    ds: Day
    reason: str
    at: str

    def artifact(self) -> Artifact:
        """What the day was made from."""
        digest = content_digest("skipped", self.reason, self.at)
        return Artifact(name=SOURCE, ds=self.ds, digest=digest, uri=f"skipped/{self.ds}.json")


def load(root: Path, ds: str) -> Skip | None:
    """The record of a skipped day, None when it is not skipped.

    Raises:
        ManifestCorrupt: the record cannot be read back.
    """
    path = _path(root, ds)
    if not path.exists():
        return None
    try:
        return Skip.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ManifestCorrupt(
            "the record of a skipped day cannot be read",
            where=str(path),
            found=str(error),
            hint=f"derm skip --ds {ds} --undo, then skip the day again",
        ) from error


def save(root: Path, skip: Skip) -> None:
    """Record that a day is skipped."""
    write_atomic(_path(root, skip.ds), skip.model_dump_json(indent=2) + "\n")


def remove(root: Path, ds: str) -> None:
    """Take back that a day is skipped."""
    _path(root, ds).unlink(missing_ok=True)


def command(ds: str) -> str:
    """The command that skips a day."""
    return f'derm skip --ds {ds} --reason "..."'


def _path(root: Path, ds: str) -> Path:
    return HomePaths(root).skipped(ds)
