"""What a home holds and what its readers see, as digests: equal dictionaries are equal bits."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import redis

from feature_store.contracts.errors import DermError
from feature_store.lake.lake import Lake, rows_digest
from feature_store.lake.storage import open_parquet
from feature_store.online.codec import CURRENT_KEY
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings

# Tables whose rows hold durations and times of day.
_TIMED = ("runs",)
# How a slot came to its content, not what it holds.
_HOW = ("base_ds", "base_digest", "done")


def observe(home: Path, store_url: str = "", lake: Lake | None = None) -> dict[str, str]:
    """Every table by day, every snapshot, what each step recorded, and everything published.

    Args:
        store_url: the online store; empty: the embedded one, started for this if need be.
        lake: the tables, where they are not below the home.
    """
    try:
        published = _published(home, store_url or ensure_redis(Settings(home=home)))
    finally:
        if not store_url:
            stop_redis(home)
    return {
        **_tables(lake or Lake(home / "lake")),
        **_snapshots(home),
        **_manifests(home),
        **published,
    }


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, extra or different, by name."""
    names = sorted(expected.keys() | found.keys())
    return [name for name in names if expected.get(name) != found.get(name)]


def _tables(lake: Lake) -> dict[str, str]:
    return {
        f"table {name} {ds}": _digest(
            # From the rows themselves: the log may say what it likes.
            _content(file).encode()
            for file in lake.files(name, ds)
        )
        for name in lake.tables()
        if name not in _TIMED
        for ds in lake.days(name)
    }


def _content(file: str) -> str:
    """The digest of a file's rows; of one that cannot be read, that it cannot."""
    try:
        with open_parquet(file) as parquet:
            return rows_digest(parquet.read())
    except (DermError, OSError, pa.ArrowException) as error:
        return type(error).__name__


def _snapshots(home: Path) -> dict[str, str]:
    models = sorted((home / "snapshots").glob("*/[!.]*/model.safetensors"))
    return {f"snapshot {p.parent.name}": _digest([p.read_bytes()]) for p in models}


def _manifests(home: Path) -> dict[str, str]:
    manifests = ManifestStore(home / "manifests")
    return {
        f"manifest {ds} {m.step} {m.upstream or ''}": " ".join(
            f"{a.name} {a.ds} {a.digest} {a.rows}" for a in m.outputs if "runs" not in a.name
        )
        for ds in manifests.days()
        for m in manifests.of_day(ds)
    }


def _published(home: Path, url: str) -> dict[str, str]:
    """Every key of the online store, both slots, and the files of the Pin indexes in use."""
    with redis.Redis.from_url(url) as store:
        keys = sorted(store.scan_iter(count=10_000))
        found = {f"key {key.decode()}": _digest([_what(v)]) for key, v in _values(store, keys)}
        current = store.get(CURRENT_KEY)
    if current is None:
        return found
    release = json.loads((home / "releases" / f"{current.decode()}.json").read_text())
    for entry in release["upstreams"]:
        for file in sorted((home / entry["index_path"]).iterdir()):
            found[f"index {entry['upstream']} {file.name}"] = _digest([file.read_bytes()])
    return found


def _values(store: redis.Redis, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(keys, store.mget(keys), strict=True)) if keys else []


def _what(value: bytes) -> bytes:
    """A value without the record of how it was written."""
    if not value.startswith(b"{"):
        return value
    document = {k: v for k, v in json.loads(value).items() if k not in _HOW}
    return json.dumps(document, sort_keys=True).encode()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
