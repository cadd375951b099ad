"""Which version is live: one file that decides, and the numbers that order publications.

Every publication takes a number (its epoch) before it tells anybody anything; only the newest may
become live. So whoever was slow, or came back from the dead, changes nothing any more.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import ValidationError

from feature_store.contracts.base import Contract
from feature_store.contracts.errors import ManifestCorrupt, StoreError
from feature_store.contracts.sealed import sealed, unsealed
from feature_store.tables.manifest import Version
from feature_store.tables.writer import sync

_C = TypeVar("_C", bound=Contract)


class Pointer(Contract):
    """What is live.

    Attributes:
        epoch: of the publication that made it live.
        previous: what was live before, which shards keep too.
    """

    epoch: int
    version: Version
    previous: Version | None = None


class Intent(Contract):
    """A publication that has begun."""

    epoch: int
    version: Version


class Superseded(StoreError):
    """A newer publication has begun; this one may not become live."""


class Ledger(Protocol):
    """What survives every process."""

    def pointer(self) -> Pointer | None:
        """What is live; None before the first publication."""
        ...

    def intent(self) -> Intent | None:
        """The publication that began last."""
        ...

    def begin(self, version: str) -> Intent:
        """Take a number for a publication."""
        ...

    def flip(self, intent: Intent) -> Pointer:
        """Make a version live.

        Raises:
            Superseded: a newer publication has begun.
        """
        ...


def next_intent(pointer: Pointer | None, intent: Intent | None, version: str) -> Intent:
    """The number of a publication that begins now."""
    last = max(pointer.epoch if pointer else 0, intent.epoch if intent else 0)
    return Intent(epoch=last + 1, version=version)


def flipped(pointer: Pointer | None, newest: Intent | None, mine: Intent) -> Pointer:
    """What is live after a publication.

    Raises:
        Superseded: a newer one has begun.
    """
    if newest != mine:
        raise Superseded(
            f"the publication of version {mine.version} was overtaken",
            expected=f"publication {mine.epoch} to be the newest",
            found=f"{newest.epoch}, of version {newest.version}" if newest else "none",
            hint="derm tables status shows what is live; publish again if that is still wanted",
        )
    if pointer is None or pointer.version == mine.version:
        previous = pointer.previous if pointer else None
    else:
        previous = pointer.version
    return Pointer(epoch=mine.epoch, version=mine.version, previous=previous)


class FileLedger:
    """The ledger below the folder of all versions.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pointer, self._intent = root / "current.json", root / "publishing.json"

    def pointer(self) -> Pointer | None:
        """What is live.

        Raises:
            ManifestCorrupt: the file was changed.
        """
        return _read(self._pointer, Pointer)

    def intent(self) -> Intent | None:
        """The publication that began last.

        Raises:
            ManifestCorrupt: the file was changed.
        """
        return _read(self._intent, Intent)

    def begin(self, version: str) -> Intent:
        """Take a number for a publication."""
        with self._alone():
            intent = next_intent(self.pointer(), self.intent(), version)
            _write(self._intent, intent)
        return intent

    def flip(self, intent: Intent) -> Pointer:
        """Make a version live.

        Raises:
            Superseded: a newer publication has begun.
        """
        with self._alone():
            pointer = flipped(self.pointer(), self.intent(), intent)
            _write(self._pointer, pointer)
        return pointer

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".ledger.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreError(
                "what is live could not be written",
                where=str(self.root),
                found=str(error),
                hint="free space or repair the permissions; what was live is live",
            ) from error


def _read(path: Path, kind: type[_C]) -> _C | None:
    hint = "remove the file, then publish the version that should be live: derm tables publish"
    try:
        return kind.model_validate_json(unsealed(path, hint=hint))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise ManifestCorrupt(
            "the file that says which version is live cannot be read",
            where=str(path),
            found=str(error),
            hint=hint,
        ) from error


def _write(path: Path, contract: Contract) -> None:
    draft = path.with_name(f".{path.name}")
    with draft.open("w") as file:
        file.write(sealed(contract.model_dump_json()))
        file.flush()
        sync(draft)
    draft.replace(path)
    sync(path.parent)
