"""`derm forget` on a pipeline that is live: lake, Redis, index, and the days that follow."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.client.client import FeatureClient
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.cli import main
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings
from tests.derm_process import derm, start
from tests.pipelines import UPSTREAMS
from tests.report_fixtures import make_home

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis]

HISTORY, DAYS, NEXT = "2025-03-01", ("2025-03-02", "2025-03-03"), "2025-03-04"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two published days, so that both slots of Redis and two indexes are there."""
    folder = tmp_path_factory.mktemp("forget")
    derm(folder, "init", "--dataset", "simulated", "--days", "1")
    derm(
        folder,
        "run",
        "--from",
        HISTORY,
        "--to",
        HISTORY,
        "--steps",
        "simulate,ingest,validate,count",
    )
    derm(folder, "run", "--from", DAYS[0], "--to", DAYS[-1])
    yield folder
    stop_redis(folder)


def test_a_lake_that_is_not_there_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a shell that lacks DERM_LAKE."""
    make_home(tmp_path, days=1)
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    assert main(["forget", "--entity", "user", "--id", "u1"]) == 2
    said = capsys.readouterr()
    assert "DERM_LAKE" in said.err
    assert "gone" not in said.out


def in_every_pool(home: Path, entity: str) -> list[str]:
    """Ids of an entity type that are in the pool of every day."""
    lake, table = Lake(home / "lake"), pool_table("ctr", entity)
    return sorted(
        set.intersection(*(set(lake.read(table, d)["entity_id"].to_pylist()) for d in DAYS))
    )


def traces(home: Path, gone: list[str]) -> list[str]:
    """Files of the home that name one of the ids; the source files are not the pipeline's."""
    words = re.compile("|".join(rf"(?<![\w-]){re.escape(i)}(?![\w-])" for i in gone).encode())
    ids = pa.array(gone, pa.string())
    found = []
    for file in (f for f in home.rglob("*") if f.is_file() and "source" not in f.parts):
        if file.suffix == ".parquet":
            named = names_any(pq.read_table(file, partitioning=None), ids)
        else:
            named = words.search(file.read_bytes()) is not None
        if named:
            found.append(str(file.relative_to(home)))
    return found


def names_any(rows: pa.Table, ids: pa.Array) -> bool:
    columns = [c.combine_chunks() for c in rows.columns]
    flat = [c.flatten() if pa.types.is_list(c.type) else c for c in columns]
    strings = [c for c in flat if pa.types.is_string(c.type)]
    return any(pc.any(pc.is_in(c, value_set=ids)).as_py() for c in strings)


def published(home: Path, ids: list[str]) -> int:
    """How many values the online store still holds for the users, over all slots."""
    store = open_store(ensure_redis(Settings(home=home)))
    prefixes = {u.users_prefix for r in Releases(home, store).known() for u in r.upstreams}
    assert len(prefixes) == 4
    return sum(v is not None for p in prefixes for v in store.read(p, ids))


def test_users_of_a_file_are_gone_everywhere(home: Path, tmp_path: Path) -> None:
    users = in_every_pool(home, "user")
    gone, kept = users[:3], users[3]
    assert published(home, gone) == 12
    assert len(traces(home, gone)) > 10
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join(gone) + "\n")
    said = json.loads(derm(home, "forget", "--entity", "user", "--file", str(listed), "--json"))
    assert {"lake:events", "lake:users", "lake:counts/user", "lake:embeddings/cvr/user/raw"} <= set(
        said["found"]
    )
    assert set(said["online"].values()) == {3}
    assert traces(home, gone) == []
    assert published(home, gone) == 0
    client = FeatureClient(ensure_redis(Settings(home=home)), home=home, timeout_s=5)
    _, found = client.get_users([*gone, kept])
    assert found.tolist() == [False] * 3 + [True]
    # Both releases know of it: the older one can be returned to, and left again.
    derm(home, "rollback")
    assert json.loads(derm(home, "status", "--json"))["published"]["ds"] == DAYS[0]
    derm(home, "release", "--ds", DAYS[-1], "--force")
    derm(home, "audit", "--ds", DAYS[-1])


def test_killed_half_way_the_same_command_finishes_it(home: Path) -> None:
    user, other = in_every_pool(home, "user")[:2]
    process = start(home, "forget", "--entity", "user", "--id", user)
    first = Lake(home / "lake").open(pool_table("ctr", "user").name).version()
    # Some partitions are rewritten, and no manifest says so yet.
    while Lake(home / "lake").open(pool_table("ctr", "user").name).version() == first:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gate = start(home, "gate", "--ds", NEXT)
    assert "a forget has begun" in gate.communicate()[1]
    assert gate.returncode == 3
    refused = start(home, "forget", "--entity", "user", "--id", other)
    assert "others are being forgotten" in refused.communicate()[1]
    assert refused.returncode == 2
    derm(home, "forget", "--entity", "user", "--id", user)
    assert traces(home, [user]) == []
    days = json.loads(derm(home, "status", "--json"))["days"]
    stale = {s["step"] for day in days for s in day["steps"] if s["state"] == "stale"}
    assert stale <= {"report"}


def test_a_pin_leaves_the_index_and_the_sequences(home: Path) -> None:
    lake = Lake(home / "lake")
    seen = [
        r.as_py()
        for f in lake.files("users", DAYS[-1])
        for r in pq.read_table(f, columns=["engaged_pins"], partitioning=None)["engaged_pins"]
        .combine_chunks()
        .flatten()
        .unique()
    ]
    gone = next(pin for pin in in_every_pool(home, "pin") if pin in set(seen))
    derm(home, "get", "pin", gone)
    said = json.loads(derm(home, "forget", "--entity", "pin", "--id", gone, "--json"))
    assert {"lake:pins", "lake:users", "lake:counts/pin"} <= set(said["found"])
    assert traces(home, [gone]) == []
    client = FeatureClient(ensure_redis(Settings(home=home)), home=home, timeout_s=5)
    assert client.index.rows_of([gone])[0] < 0


def test_life_goes_on(home: Path) -> None:
    """What readers see is consistent, nothing is stale, and the next day builds on it."""
    assert all(day["complete"] for day in json.loads(derm(home, "status", "--json"))["days"])
    derm(home, "run", "--from", NEXT, "--to", NEXT)
    assert json.loads(derm(home, "status", "--json"))["published"]["ds"] == NEXT
    for upstream in UPSTREAMS:
        publish = ManifestStore(home / "manifests").get("publish", NEXT, upstream)
        assert publish
        assert publish.metrics["full"] == 0
