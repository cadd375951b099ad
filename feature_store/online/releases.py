"""Releases: one complete day, users and Pins, named by one pointer.

A release is written twice: as JSON below the home, and into the online store next to the one key
that names the current release. That key decides; the file `releases/current` follows it, for
readers that only need the index.
"""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import DermError, GuardFailed, ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import Artifact, PublishedUpstream, Release
from feature_store.contracts.sealed import sealed, unsealed
from feature_store.online.codec import CURRENT_KEY, release_key
from feature_store.online.store import OnlineStore, put_slot_state, slot_state

# Copies of the home are written again from those of the store.
_HEAL = "derm restore"


class Releases:
    """The releases of one home and one online store."""

    def __init__(self, root: Path, store: OnlineStore) -> None:
        self._folder = root / "releases"
        self.store = store

    def current(self) -> Release | None:
        """What readers should see; None before the first release.

        The store decides; where it has lost its pointer, the file that follows it is believed, so
        that the next release still knows which one came before it, and leaves its slot alone.

        Raises:
            ManifestCorrupt: the pointer names a release that cannot be read.
        """
        pointer = self.store.get(CURRENT_KEY)
        return self._recorded() if pointer is None else self.get(pointer.decode())

    def get(self, release_id: str) -> Release:
        """A release by id: the home's copy, or the online store's where that is gone or damaged.

        Raises:
            MissingInput: there is no such release.
            ManifestCorrupt: neither can be read.
        """
        problem: DermError = MissingInput(
            f"release {release_id} is not known",
            where=f"{self._folder} and {self.store.location}",
            hint="does DERM_REDIS_URL name the store this home publishes to?",
        )
        try:
            if kept := self._kept(release_id):
                return kept
        except ManifestCorrupt as error:
            problem = error
        raw = self.store.get(release_key(release_id))
        if raw is None:
            raise problem
        try:
            return Release.model_validate_json(raw)
        except ValidationError as error:
            raise ManifestCorrupt(
                "a release cannot be read",
                where=f"{self.store.location} {release_key(release_id)}",
                found=str(error),
                hint=f"derm release --ds {release_id[:10]} --force",
            ) from error

    def _kept(self, release_id: str) -> Release | None:
        """The home's copy of a release, if it has one.

        Raises:
            ManifestCorrupt: it is not what was written.
        """
        path = self._path(release_id)
        if not path.exists():
            return None
        try:
            release = self.read(path)
        except ValueError as error:
            raise ManifestCorrupt(
                "a release cannot be read", where=str(path), found=str(error), hint=_HEAL
            ) from error
        if release.release_id != release_id:
            raise ManifestCorrupt(
                "a release is another one",
                where=str(path),
                expected=release_id,
                found=release.release_id,
                hint=_HEAL,
            )
        return release

    def heal(self) -> None:
        """Write damaged copies of the home anew, from the store; what is in neither is removed."""
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(ManifestCorrupt):
                self._kept(path.stem)
                continue
            path.unlink()
            with contextlib.suppress(MissingInput, ManifestCorrupt):
                self.record(self.get(path.stem))

    def record(self, release: Release) -> None:
        """Have a release in the store, and below the home as it was written."""
        kept = None
        with contextlib.suppress(ManifestCorrupt):
            kept = self._kept(release.release_id)
        if kept is None:
            write_atomic(self._path(release.release_id), sealed(release.model_dump_json()))
        body = release.model_dump_json().encode()
        self.store.put(release_key(release.release_id), body)

    def _recorded(self) -> Release | None:
        """The release that the home's own pointer names, if it has one."""
        pointer = self._folder / "current"
        if not pointer.exists():
            return None
        try:
            return self.get(pointer.read_text().strip())
        except (MissingInput, UnicodeDecodeError):
            return None

    @staticmethod
    def read(path: Path) -> Release:
        """A release from its file.

        Raises:
            ManifestCorrupt: it was changed since it was written.
            ValueError: it is none.
        """
        return Release.model_validate_json(unsealed(path, hint=_HEAL))

    def known(self) -> tuple[Release, ...]:
        """Every release recorded below the home, by id."""
        return tuple(self.get(p.stem) for p in sorted(self._folder.glob("*.json")))

    def publish(self, ds: str, upstreams: Sequence[PublishedUpstream]) -> Release:
        """Make one day current. Publishing what is current already changes nothing.

        Raises:
            GuardFailed: a slot does not hold the pool that the release names.
        """
        self.check(ds, upstreams)
        release_id = f"{ds}-{_digest(upstreams)}"
        current = self.current()
        release = Release(
            release_id=release_id,
            ds=ds,
            upstreams=tuple(upstreams),
            previous=current.release_id if current else None,
        )
        # The current one may be known to the store alone, when its file was lost.
        if self._path(release_id).exists() or (current and current.release_id == release_id):
            with contextlib.suppress(ManifestCorrupt):
                release = self.get(release_id)
        self.point_at(release)
        return release

    def roll_back(self) -> Release:
        """Make the release before the current one current again.

        Raises:
            MissingInput: there is none.
            GuardFailed: its slot has been given to a newer day since.
        """
        current = self.current()
        if current is None or current.previous is None:
            raise MissingInput(
                "there is no release to roll back to",
                where=self.store.location,
                found=f"current release {current.release_id if current else 'none'}",
                hint="publish a day: derm run --from DAY --to DAY",
            )
        target = self.get(current.previous)
        self.check(target.ds, target.upstreams)
        self.point_at(target)
        return target

    def point_at(self, release: Release) -> None:
        """Move the pointer: first what it will name, then the key, then the file that follows.

        Nothing is checked: `publish` and `roll_back` do.
        """
        self.record(release)
        self.store.put(CURRENT_KEY, release.release_id.encode())
        write_atomic(self._folder / "current", release.release_id + "\n")

    def relabel(self, pools: Mapping[str, Artifact]) -> None:
        """Let the slots and releases of user pools that were rewritten in place follow them.

        A publish then goes on from what the slots hold, and a rollback finds what it expects.

        Args:
            pools: by the digest a pool had, the pool as it is now.
        """
        prefixes = set()
        for release in self.known():
            prefixes |= {e.users_prefix for e in release.upstreams}
            entries = tuple(
                e.model_copy(update={"pool_digest": now.digest, "users": now.rows})
                if (now := pools.get(e.pool_digest))
                else e
                for e in release.upstreams
            )
            if entries != release.upstreams:
                changed = release.model_copy(update={"upstreams": entries})
                write_atomic(self._path(release.release_id), sealed(changed.model_dump_json()))
                self.store.put(release_key(release.release_id), changed.model_dump_json().encode())
        for prefix in sorted(prefixes):
            state = slot_state(self.store, prefix)
            if state and (now := pools.get(state.pool_digest)):
                changes = {"pool_digest": now.digest, "users": now.rows}
                put_slot_state(self.store, prefix, state.model_copy(update=changes))

    def check(self, ds: str, upstreams: Sequence[PublishedUpstream]) -> None:
        """Refuse a release of a day whose slot or index is not there, whole, and of that day.

        Raises:
            GuardFailed: naming the upstream and what its slot or index folder holds instead.
        """
        for entry in upstreams:
            self._check_users(ds, entry)
            self._check_index(ds, entry)

    def _check_users(self, ds: str, entry: PublishedUpstream) -> None:
        state = slot_state(self.store, entry.users_prefix)
        if state and (state.state, state.pool_digest) == ("complete", entry.pool_digest):
            return
        held = f"{state.state} pool {state.pool_digest} of {state.ds}" if state else "nothing"
        raise GuardFailed(
            f"the slot of {entry.upstream} does not hold the users of this release",
            where=f"{self.store.location} {entry.users_prefix}*",
            expected=f"complete pool {entry.pool_digest}",
            found=held,
            hint="a newer publish uses the slot now; publish the day again: "
            f"derm publish --ds {ds} --upstream {entry.upstream} --force, then "
            f"derm release --ds {ds} --force"
            if state
            else "the store has lost it; derm restore writes it again from the lake",
        )

    def _check_index(self, ds: str, entry: PublishedUpstream) -> None:
        folder = self._folder.parent / entry.index_path
        if (folder / "index.json").exists():
            return
        raise GuardFailed(
            f"the Pin index of {entry.upstream} is not there",
            where=str(folder),
            expected="a finished index",
            found="no index.json",
            hint="Pins were forgotten since, or retention removed it; to publish the day again: "
            f"derm index --ds {ds} --upstream {entry.upstream} --force, then "
            f"derm release --ds {ds} --force",
        )

    def _path(self, release_id: str) -> Path:
        return self._folder / f"{release_id}.json"


def entry_of(release: Release, upstream: Upstream) -> PublishedUpstream | None:
    """What a release says about one upstream."""
    return next((e for e in release.upstreams if e.upstream == upstream), None)


def _digest(upstreams: Sequence[PublishedUpstream]) -> str:
    joined = "\x1f".join(entry.model_dump_json() for entry in upstreams)
    return hashlib.sha256(joined.encode()).hexdigest()[:8]
