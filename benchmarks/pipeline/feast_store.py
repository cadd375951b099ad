"""Feast's Redis online store, for publish.py and reads.py.

Runs in Feast's own environment (`requirements/bench-feast.in`) and imports nothing of this
project. The URL of the server comes on standard input, so that no password is in a command line;
the last line of the output is JSON.

    python benchmarks/pipeline/feast_store.py materialize|write_protos|read USERS DIM < url
"""

import datetime as dt
import json
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bytes, Float32

BATCH = 1000
READ_IDS, READS = 500, 40


def main() -> None:
    """Run one measurement."""
    mode, users, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder), urlparse(sys.stdin.read().strip()), users, dim)
        measure = {"materialize": _materialize, "write_protos": _protos, "read": _read}[mode]
        sys.stdout.write("\n" + json.dumps(measure(store, users, dim)) + "\n")


def _store(folder: Path, url, users: int, dim: int) -> FeatureStore:
    """A store with two views of the users: a float32 list in Parquet, and 512 packed bytes."""
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": "file"},
        online_store={
            "type": "redis",
            "connection_string": f"{url.hostname}:{url.port},password={url.password}",
        },
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    vectors = np.random.default_rng(0).standard_normal((users, dim)).astype(np.float32)
    pool = {
        "user_id": [f"user{i:08d}" for i in range(users)],
        "embedding": list(vectors),
        "at": dt.datetime.now(dt.UTC) - dt.timedelta(days=1),
    }
    pd.DataFrame(pool).to_parquet(folder / "pool.parquet")
    source = FileSource(path=str(folder / "pool.parquet"), timestamp_field="at")
    views = [
        FeatureView(
            name=name,
            entities=[user],
            ttl=dt.timedelta(days=90),
            schema=[Field(name="embedding", dtype=dtype)],
            source=source,
        )
        for name, dtype in (("pool", Array(Float32)), ("packed", Bytes))
    ]
    store.apply([user, *views])
    return store


def _values(users: int, dim: int) -> list[bytes]:
    vectors = np.random.default_rng(0).standard_normal((users, dim)).astype(np.float16)
    return [row.tobytes() for row in vectors]


def _materialize(store: FeatureStore, users: int, _: int) -> dict:
    """What a user calls: the Parquet file of the pool into the online store."""
    now = dt.datetime.now(dt.UTC)
    started = time.perf_counter()
    store.materialize(now - dt.timedelta(days=2), now, feature_views=["pool"])
    return {"rows_per_s": users / (time.perf_counter() - started)}


def _protos(store: FeatureStore, users: int, dim: int) -> dict:
    """Feast's inner loop alone, with its protocol buffers made beforehand."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        (
            EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=f"user{i:08d}")]),
            {"embedding": Value(bytes_val=value)},
            now,
            now,
        )
        for i, value in enumerate(_values(users, dim))
    ]
    online = store._get_provider().online_store
    view = store.get_feature_view("packed")
    started = time.perf_counter()
    for start in range(0, users, BATCH):
        online.online_write_batch(store.config, view, rows[start : start + BATCH], None)
    return {"rows_per_s": users / (time.perf_counter() - started)}


def _read(store: FeatureStore, users: int, dim: int) -> dict:
    """Latency of reading 500 users, decoded to one array."""
    _protos(store, users, dim)
    rng, seconds = np.random.default_rng(1), []
    for _ in range(READS):
        ids = [{"user_id": f"user{i:08d}"} for i in rng.integers(0, users, READ_IDS)]
        started = time.perf_counter()
        found = store.get_online_features(["packed:embedding"], ids).to_dict()["embedding"]
        vectors = np.frombuffer(b"".join(found), np.float16).reshape(READ_IDS, dim)
        vectors.astype(np.float32)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


if __name__ == "__main__":
    main()
