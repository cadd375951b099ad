"""Where the files of the lake are: a folder, or a prefix of an S3-compatible object store.

One code path for both. A folder is read by memory map; an object store is reached with the standard
AWS_* variables of the environment (AWS_ENDPOINT_URL for one that is not Amazon's), which Arrow and
Delta Lake read alike. Of an object store it is asked that it writes an object only if there is none
(`If-None-Match`): that is what makes a Delta commit one or nothing.
"""

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_store.contracts.errors import MissingInput
from feature_store.lake import content

_REMOTE = "s3://"
# Objects up to so many bytes are fetched in one request, and checked.
_FETCHED_WHOLE = 64 << 20


@dataclass(frozen=True, slots=True)
class Storage:
    """A root below which tables are. Cheap to send to another process.

    Attributes:
        root: an absolute folder, or `s3://bucket/prefix`.
    """

    root: str

    @classmethod
    def of(cls, root: "Path | str | Storage") -> "Storage":
        """The storage at a folder or URI."""
        if isinstance(root, Storage):
            return root
        text = str(root)
        return cls(text.rstrip("/") if text.startswith(_REMOTE) else str(Path(text).absolute()))

    def __str__(self) -> str:
        return self.root

    @property
    def is_remote(self) -> bool:
        """Whether it is an object store."""
        return self.root.startswith(_REMOTE)

    def uri(self, *parts: str) -> str:
        """The address of something below the root."""
        return "/".join((self.root, *parts))

    @property
    def delta_options(self) -> dict[str, str] | None:
        """What Delta Lake has to be told beside the environment."""
        if not self.is_remote:
            return None
        insecure = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        return {"aws_conditional_put": "etag", "allow_http": str(insecure).lower()}

    def create(self, uri: str) -> pa.NativeFile:
        """A file to write; it is there, whole, when it is closed."""
        filesystem, path = locate(uri)
        if not self.is_remote:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return filesystem.open_output_stream(path)

    def move(self, source: str, target: str) -> None:
        """Give a file another name."""
        filesystem, path = locate(source)
        filesystem.move(path, locate(target)[1])

    def exists(self, uri: str) -> bool:
        """Whether there is a file at an address."""
        filesystem, path = locate(uri)
        return bool(filesystem.get_file_info(path).type == pafs.FileType.File)

    def inode(self, uri: str) -> int:
        """What tells a folder from a later one of the same name; objects have none."""
        return 0 if self.is_remote else Path(uri).stat().st_ino if Path(uri).exists() else -1

    def files(self, uri: str, suffix: str) -> tuple[str, ...]:
        """Addresses of all files below an address that end in `suffix`, sorted."""
        found = _listed(uri, recursive=True)
        return tuple(sorted(u for u, info in found if info.is_file and u.endswith(suffix)))

    def sizes(self, uri: str) -> dict[str, int]:
        """Every file below an address, and its size in bytes."""
        return {u: info.size for u, info in _listed(uri, recursive=True) if info.is_file}

    def tables(self) -> tuple[str, ...]:
        """Names of all Delta tables below the root, sorted."""
        return tuple(sorted(self._tables(self.root)))

    def _tables(self, uri: str) -> Iterator[str]:
        folders = [u for u, info in _listed(uri, recursive=False) if not info.is_file]
        if f"{uri}/_delta_log" in folders:
            yield uri.removeprefix(f"{self.root}/")
            return
        for folder in folders:
            yield from self._tables(folder)


def locate(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address, and the path on it."""
    if uri.startswith(_REMOTE):
        return _s3(), uri.removeprefix(_REMOTE)
    return pafs.LocalFileSystem(use_mmap=True), uri


def size_of(uris: Iterable[str]) -> int:
    """Bytes of some files together; one that is not there counts nothing."""
    by_system: dict[bool, list[str]] = {}
    for uri in uris:
        by_system.setdefault(uri.startswith(_REMOTE), []).append(uri)
    total = 0
    for found in by_system.values():
        filesystem, paths = locate(found[0])[0], [locate(uri)[1] for uri in found]
        total += sum(info.size or 0 for info in filesystem.get_file_info(paths))
    return total


def check_file(uri: str) -> None:
    """Compare a file of the lake with its name; of an object only the name is looked at.

    Raises:
        MissingInput: it is not there.
        DamagedFile: it is not the one that was written.
        ContractViolation: another program wrote it.
    """
    if uri.startswith(_REMOTE):
        content.digests_of(uri)
        return
    try:
        content.check_local_file(uri)
    except OSError as error:
        raise MissingInput(
            "a file of the lake cannot be read",
            where=uri,
            found=str(error),
            hint="derm verify names the command that makes it again",
        ) from error


def read_through(uri: str) -> int:
    """Read all of a file of the lake, an object too, and compare it with its name.

    Returns:
        Its bytes.

    Raises:
        OSError: it is not there.
        DamagedFile: it is not the one that was written.
        ContractViolation: another program wrote it.
    """
    filesystem, path = locate(uri)
    with filesystem.open_input_stream(path) as stream:
        return content.check_stream(uri, stream)


def open_parquet(uri: str, **options: object) -> pq.ParquetFile:
    """A file of the lake: mapped, so that plain pages are decoded where they lie, or fetched.

    Its bytes are compared with its name; those of a large object would have to be fetched twice,
    and only `derm verify` does that.

    Raises:
        MissingInput: it is not there.
        DamagedFile: it is not the one that was written.
        ContractViolation: another program wrote it.
    """
    check_file(uri)
    if not uri.startswith(_REMOTE):
        return pq.ParquetFile(uri, memory_map=True, **options)
    filesystem, path = locate(uri)
    file = filesystem.open_input_file(path)
    if file.size() > _FETCHED_WHOLE:
        return pq.ParquetFile(file, pre_buffer=True, **options)
    with file:
        data = file.read_buffer()
    content.check_bytes(uri, data)
    return pq.ParquetFile(pa.BufferReader(data), **options)


@functools.cache
def _s3() -> pafs.FileSystem:
    return pafs.S3FileSystem(
        endpoint_override=os.environ.get("AWS_ENDPOINT_URL"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
    )


def _listed(uri: str, *, recursive: bool) -> Iterator[tuple[str, pafs.FileInfo]]:
    filesystem, path = locate(uri)
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=recursive)
    prefix = _REMOTE if uri.startswith(_REMOTE) else ""
    for info in filesystem.get_file_info(selector):
        yield f"{prefix}{info.path}", info
