"""The lake in an S3-compatible object store: the same bits as in a folder, the same guarantees."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from feature_store.contracts.base import ENTITIES
from feature_store.contracts.errors import CommitConflict, InputError, MissingInput
from feature_store.contracts.tables import daily_table, pool_table, raw_table
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.staging import read_files
from feature_store.lake.storage import Storage, locate
from jobs.services.redis import stop_redis
from jobs.settings import PROJECT, Settings
from tests.derm_process import begin, derm, start
from tests.pipelines import UPSTREAMS

_MOTO = PROJECT / ".venv-s3" / "bin" / "moto_server"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.spark,
    pytest.mark.redis,
    pytest.mark.skipif(
        not _MOTO.exists(), reason="no object store is installed: make .venv-s3/.s3"
    ),
]

DAYS = ("2025-03-02", "2025-03-03")
LAKE = "s3://lake/some/prefix"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """The environment of a running object store with an empty bucket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(_MOTO), "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        _await(environment["AWS_ENDPOINT_URL"])
        filesystem = pafs.S3FileSystem(
            endpoint_override=environment["AWS_ENDPOINT_URL"], allow_bucket_creation=True
        )
        filesystem.create_dir("lake")
        yield environment | {"DERM_LAKE": LAKE}
        server.terminate()


def _await(url: str) -> None:
    for _ in range(300):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
            return
        time.sleep(0.1)
    raise AssertionError("the object store does not answer")


def _two_days(home: Path, *steps_only: str, **environment: str) -> None:
    begin(home, **environment)
    derm(home, "run", "--from", DAYS[0], "--to", DAYS[1], *steps_only, **environment)


@pytest.fixture(scope="module")
def remote(s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two published days whose lake is in the object store."""
    folder = tmp_path_factory.mktemp("remote")
    _two_days(folder, **s3)
    yield folder
    stop_redis(folder)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same days in a folder, not published."""
    folder = tmp_path_factory.mktemp("local")
    _two_days(folder, "--steps", "simulate,ingest,validate,train,infer,dedup,merge,count,verify")
    return folder


def test_every_table_holds_the_same_bits(remote: Path, local: Path) -> None:
    assert not (remote / "lake").exists()
    here, there = Lake(local / "lake"), Lake(LAKE)
    assert set(there.tables()) == {*here.tables(), "runs"}
    for name in here.tables():
        assert there.days(name) == here.days(name)
        for ds in here.days(name):
            assert there.artifact(name, ds).digest == here.artifact(name, ds).digest, (name, ds)


def test_readers_get_what_was_published(remote: Path, s3: dict[str, str]) -> None:
    status = json.loads(derm(remote, "status", "--json", **s3))
    assert status["published"]["ds"] == DAYS[1]
    assert [day["command"] for day in status["days"]] == ["", ""]
    derm(remote, "audit", "--ds", DAYS[1], "--force", **s3)


def test_of_two_writers_one_wins(remote: Path) -> None:
    lake, table = Lake(LAKE), pool_table("ctr", "user")
    before = lake.artifact(table.name, DAYS[1])
    properties = lake.properties(table.name)
    staged = [
        stage_file(lake.root, table, DAYS[1], read_files(files, table), bucket=bucket)
        for bucket, files in lake.bucket_files(table.name, DAYS[1]).items()
    ]
    slow = lake.open(table.name)
    lake.commit(table, DAYS[1], staged, properties=properties)
    with pytest.raises(CommitConflict, match="another writer changed"):
        lake._transact(table, slow, DAYS[1], staged, [("ds", "=", DAYS[1])])
    assert lake.artifact(table.name, DAYS[1]).digest == before.digest


def test_a_repair_gives_the_same_bits(remote: Path, local: Path, s3: dict[str, str]) -> None:
    table = raw_table("ctr", "user")
    lake = Lake(LAKE)
    rows = {b: read_files(f, table) for b, f in lake.bucket_files(table.name, DAYS[0]).items()}
    halves = [
        stage_file(lake.root, table, DAYS[0], r.slice(0, len(r) // 2), bucket=b)
        for b, r in rows.items()
    ]
    lake.commit(table, DAYS[0], halves, properties=lake.properties(table.name))
    repair = ("backfill", "--from", DAYS[0], "--to", DAYS[0], "--what", "embeddings", "--yes")
    derm(remote, *repair, **s3)
    here = Lake(local / "lake")
    for u in UPSTREAMS:
        for e in ENTITIES:
            for declare in (raw_table, daily_table, pool_table):
                name = declare(u, e).name
                for ds in DAYS:
                    assert lake.artifact(name, ds).digest == here.artifact(name, ds).digest


def test_maintenance(remote: Path, s3: dict[str, str]) -> None:
    lake = Lake(LAKE)
    table = pool_table("ctr", "user")
    user = lake.read(table, DAYS[1])["entity_id"][0].as_py()
    derm(remote, "forget", "--entity", "user", "--id", user, **s3)
    for name in lake.tables():
        for file in lake.root.files(lake.path(name), ".parquet"):
            if "entity_id" in (found := _rows(file)).column_names:
                assert user not in found["entity_id"].to_pylist()
    derm(remote, "retain", **s3)
    refused = start(remote, "rebucket", **s3)
    assert "cannot be re-bucketed in place" in refused.communicate()[1]
    assert refused.returncode == 2


def _rows(uri: str) -> pa.Table:
    filesystem, path = locate(uri)
    return pa.parquet.read_table(path, filesystem=filesystem, partitioning=None)


def test_what_is_not_there_is_said_with_its_address(s3: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="s3://lake/nowhere/events"):
        Lake("s3://lake/nowhere").open("events")
    name = "-".join("0" * 32 for _ in range(3)) + ".parquet"
    with pytest.raises(MissingInput, match=f"s3://lake/nowhere/{name}"):
        read_files([f"s3://lake/nowhere/{name}"], pool_table("ctr", "user"))
    assert Storage.of("s3://lake/nowhere").tables() == ()


@pytest.mark.parametrize("lake", ["/some/lake", "s3:lake", "s3://", "gs://lake/x"])
def test_a_lake_that_is_no_object_store_is_refused(
    lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERM_LAKE", lake)
    with pytest.raises(InputError, match="DERM_LAKE"):
        Settings.from_environment()


def test_a_home_says_where_its_lake_is(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).lake_root == tmp_path / "lake"
    assert Settings(home=tmp_path, lake=LAKE).lake_root == LAKE
