"""The online store in a folder, for people without Redis: a sorted, memory-mapped pair per slot.

`ids.npy` holds the ids as fixed-width UTF-8 bytes in ascending order, `values.npy` the values in
the same order; a read is one binary search. Writers leave drafts; `seal` merges them with the
pair into a new one and swaps the folder's `current` link, so a reader has the old pair or the new.
"""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.contracts.errors import StoreError

_COPY_ROWS = 65_536


class FileStore:
    """The store behind a file:// URL. Expiry is not kept: pruning removes what is too old."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(url.removeprefix("file://")))
        self.location = f"files {self.root}"

    def get(self, key: str) -> bytes | None:
        """One metadata value."""
        path = self._meta(key)
        return path.read_bytes() if path.exists() else None

    def put(self, key: str, value: bytes) -> None:
        """Set one metadata value, by renaming a new file over the old one."""
        path = self._meta(key)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with _typed(self.location):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(value)
            draft.replace(path)

    def delete(self, key: str) -> None:
        """Remove one metadata value."""
        self._meta(key).unlink(missing_ok=True)

    def writer(self, prefix: str) -> "FileWriter":
        """A writer into one slot; what it wrote is readable after `seal`."""
        return FileWriter(self._slot(prefix) / "drafts")

    def seal(self, prefix: str) -> None:
        """Merge the drafts into a new sorted pair and make it the slot's current one."""
        slot = self._slot(prefix)
        drafts = sorted((slot / "drafts").glob("*.npz"))
        with _typed(self.location):
            if drafts:
                self._merge(slot, drafts)
                for draft in drafts:
                    draft.unlink()

    def wipe(self, prefix: str) -> None:
        """Remove a slot."""
        shutil.rmtree(self._slot(prefix), ignore_errors=True)

    def slots(self) -> tuple[str, ...]:
        """The prefixes that have a pair or drafts."""
        folders = {p.parent for p in self.root.glob("derm/*/*/*/*")}
        return tuple(sorted(":".join(f.relative_to(self.root).parts) + ":" for f in folders))

    def erase(self, prefix: str, ids: pa.Array) -> None:
        """Write the drafts and the pair anew without the rows.

        A draft that a killed publish has left is sealed by the next one, and would bring them back.
        """
        slot, gone = self._slot(prefix), np.array([*_names(ids), b""], np.bytes_)
        with _typed(self.location):
            for draft in (slot / "drafts").glob("*.npz"):
                with np.load(draft) as content:
                    kept = ~np.isin(content["ids"], gone)
                    part = {"ids": content["ids"][kept], "values": content["values"][kept]}
                    removed = content["removed"]
                fresh = draft.with_name(f".{draft.name}")
                with fresh.open("wb") as file:
                    np.savez(file, **part, removed=removed[~np.isin(removed, gone)])
                fresh.replace(draft)
            known, _ = _pair(slot)
            if np.isin(known, gone).any():
                nothing = np.zeros(0, "S1"), np.zeros((0, 0), np.uint8)
                self._merge_parts(slot, [nothing], gone)

    def purge(self) -> tuple[str, ...]:
        """Remove what killed writers and readers that have let go have left in the slots."""
        with _typed(self.location):
            for prefix in self.slots():
                slot = self._slot(prefix)
                kept = {"current", "drafts", (slot / "current").resolve().name}
                for entry in (p for p in slot.iterdir() if p.name not in kept):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                for draft in slot.glob("drafts/.*"):
                    draft.unlink()
        return ()

    def read(self, prefix: str, ids: Sequence[str]) -> list[bytes | None]:
        """The values of ids, by one binary search over all of them."""
        known, values = _pair(self._slot(prefix))
        wanted = np.array([i.encode() for i in ids], np.bytes_)
        if len(known) == 0 or len(wanted) == 0:
            return [None] * len(ids)
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        hits = known[at] == wanted
        return [values[row].tobytes() if hit else None for row, hit in zip(at, hits, strict=True)]

    def sample(self, prefix: str, limit: int) -> list[str]:
        """Ids evenly spread over the slot."""
        known, _ = _pair(self._slot(prefix))
        step = max(len(known) // max(limit, 1), 1)
        return [i.decode() for i in known[::step][:limit].tolist()]

    def keys(self) -> int:
        """Rows of every slot, and metadata."""
        slots = {link.parent for link in self.root.rglob("current")}
        metadata = sum(1 for _ in (self.root / "meta").glob("[!.]*"))
        return metadata + sum(len(_pair(slot)[0]) for slot in slots)

    def _merge(self, slot: Path, drafts: list[Path]) -> None:
        parts, removed = [], [np.zeros(0, "S1")]
        for draft in drafts:
            with np.load(draft) as content:
                parts.append((content["ids"], content["values"]))
                removed.append(content["removed"])
        self._merge_parts(slot, parts, np.concatenate(removed))

    def _merge_parts(
        self,
        slot: Path,
        parts: list[tuple[npt.NDArray, npt.NDArray[np.uint8]]],
        removed: npt.NDArray,
    ) -> None:
        """Write the pair anew: what it holds, without `removed`, and with the rows of `parts`."""
        ids, values = _pair(slot)
        changed = np.concatenate([p[0] for p in parts])
        fresh = np.concatenate([p[1] for p in parts if len(p[0])] or [values[:0]])
        kept = np.flatnonzero(~np.isin(ids, np.concatenate([changed, removed])))
        # A row that was written twice keeps the last one.
        changed, last = np.unique(changed[::-1], return_index=True)
        everything = np.concatenate([ids[kept], changed])
        order = np.argsort(everything, kind="stable")
        name = uuid.uuid4().hex
        (slot / name).mkdir(parents=True)
        width = max(fresh.shape[1], values.shape[1])
        target = np.lib.format.open_memmap(
            slot / name / "values.npy", "w+", np.uint8, (len(everything), width)
        )
        source = np.concatenate([kept, len(values) + len(fresh) - 1 - last])
        for start in range(0, len(order), _COPY_ROWS):
            rows = source[order[start : start + _COPY_ROWS]]
            old = rows < len(values)
            block = target[start : start + _COPY_ROWS]
            if old.any():
                block[old] = values[rows[old]]
            if not old.all():
                block[~old] = fresh[rows[~old] - len(values)]
        target.flush()
        np.save(slot / name / "ids.npy", everything[order], allow_pickle=False)
        self._swap(slot, name)

    def _swap(self, slot: Path, name: str) -> None:
        link = slot / f".{name}"
        link.symlink_to(name)
        before = slot / "current"
        old = before.readlink() if before.is_symlink() else None
        link.replace(before)
        if old:
            # Readers that have it mapped keep it until they let go.
            shutil.rmtree(slot / old, ignore_errors=True)

    def _meta(self, key: str) -> Path:
        return self.root / "meta" / key.replace(":", ".")

    def _slot(self, prefix: str) -> Path:
        return self.root / prefix.strip(":").replace(":", "/")


class FileReader:
    """What a reader asks of a Redis client, answered from files."""

    def __init__(self, url: str) -> None:
        self._store = FileStore(url)

    def get(self, key: str) -> bytes | None:
        """One metadata value."""
        return self._store.get(key)

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """A metadata value, then users of one slot.

        The metadata is read last: a slot is rewritten only after the pointer has left it, so an
        unchanged pointer proves that the values before it are of its release.
        """
        users = [key.split(":", 4) for key in keys[1:]]
        prefix = ":".join(users[0][:4]) + ":" if users else ""
        values = self._store.read(prefix, [u[4] for u in users]) if users else []
        return [self._store.get(keys[0]), *values]

    def close(self) -> None:
        """Nothing stays open."""


class AsyncFileReader:
    """The same for asyncio; files are read in place, a page fault at most."""

    def __init__(self, url: str) -> None:
        self._reader = FileReader(url)

    async def get(self, key: str) -> bytes | None:
        """One metadata value."""
        return self._reader.get(key)

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """A metadata value, then users of one slot."""
        return self._reader.mget(keys)

    async def aclose(self) -> None:
        """Nothing stays open."""


class FileWriter:
    """Collects one bucket's changes and leaves them as a draft beside the slot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids: list[npt.NDArray] = [np.zeros(0, "S1")]
        self._values: list[npt.NDArray[np.uint8]] = []
        self._removed: list[npt.NDArray] = [np.zeros(0, "S1")]

    def write(
        self,
        ids: pa.Array,
        values: npt.NDArray[np.uint8],
        expire_at: npt.NDArray[np.int64] | None = None,  # noqa: ARG002 - the protocol's
    ) -> None:
        """Set rows."""
        self._ids.append(_names(ids))
        self._values.append(values)

    def remove(self, ids: pa.Array) -> None:
        """Remove rows."""
        self._removed.append(_names(ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ids, removed = np.concatenate(self._ids), np.concatenate(self._removed)
        if error is not None or len(ids) + len(removed) == 0:
            return
        values = np.concatenate(self._values) if self._values else np.zeros((0, 0), np.uint8)
        with _typed(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{uuid.uuid4().hex}.npz"
            np.savez(draft, ids=ids, values=values, removed=removed)
            draft.replace(draft.with_name(draft.name.removeprefix(".")))


@contextmanager
def _typed(location: str) -> Iterator[None]:
    """Turn what the file system refuses into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the file store could not be written",
            where=location,
            found=str(error),
            hint="free space or repair the permissions, then run the step again",
        ) from error


def _names(ids: pa.Array) -> npt.NDArray[np.bytes_]:
    """Ids as UTF-8 bytes of one width."""
    return np.array(ids.cast(pa.binary()).to_pylist(), np.bytes_)


def _pair(slot: Path) -> tuple[npt.NDArray, npt.NDArray[np.uint8]]:
    """Ids [n] and values [n, W] of a slot; empty when it has none."""
    # Resolved once: a swap in between must not pair old ids with new values.
    folder = (slot / "current").resolve()
    if not (folder / "ids.npy").exists():
        return np.zeros(0, "S1"), np.zeros((0, 0), np.uint8)
    return (
        np.load(folder / "ids.npy", mmap_mode="r"),
        np.load(folder / "values.npy", mmap_mode="r"),
    )
