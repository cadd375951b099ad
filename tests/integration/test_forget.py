"""`derm forget` on a pipeline that is live: lake, Redis, index, and the days that follow."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.client.client import FeatureClient
from feature_store.contracts.tables import pool_table
from feature_store.lake.lake import Lake
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.cli import main
from jobs.engine.manifests import ManifestStore
from jobs.services.redis import ensure_redis, persist, stop_redis
from jobs.settings import Settings
from jobs.upkeep.scanner import Wanted, scan
from tests.derm_process import begin, derm, start
from tests.pipelines import UPSTREAMS
from tests.report_fixtures import make_home

pytestmark = [pytest.mark.integration, pytest.mark.spark, pytest.mark.redis]

DAYS, NEXT = ("2025-03-02", "2025-03-03"), "2025-03-04"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two published days, so that both slots of Redis and two indexes are there."""
    folder = tmp_path_factory.mktemp("a home, né à forget")
    begin(folder, "toy")
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
    """Files of the home that name one of the ids; the source files are not the pipeline's.

    No id of the simulated world is part of another: it is looked for inside words as well.
    """
    files = (f for f in home.rglob("*") if f.is_file() and "source" not in f.parts)
    return [f"{t.file} {t.where}" for t in scan(sorted(files), Wanted(gone, anywhere=True))]


def leave_behind(home: Path, gone: list[str]) -> list[Path]:
    """What killed steps, refused deliveries and cut off saves leave, naming the users."""
    spill = home / "scratch" / "infer-killed" / "user-0.arrow"
    spill.parent.mkdir(parents=True)
    rows = pa.table({"entity_id": gone})
    with pa.ipc.new_stream(spill, rows.schema) as writer:
        writer.write_table(rows)
    attempt = home / "attempts" / DAYS[-1] / "ingest.json"
    attempt.parent.mkdir(parents=True, exist_ok=True)
    refusal = {"found": f"2 of 9 rows: {gone!r}", "refused": True}
    attempt.write_text(json.dumps(refusal))
    save = home / "services" / "redis" / "temp-4711.rdb"
    persist(Settings(home=home))
    save.write_bytes((home / "services" / "redis" / "users.rdb").read_bytes())
    log = home / "services" / "airflow" / "logs" / "dag_id=derm_daily" / "attempt=1.log"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"event": f"expected a key; found {gone[0]!r}, {gone[1]!r}"}) + "\n")
    return [spill, attempt, save, log]


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
    left = leave_behind(home, gone)
    before = traces(home, gone)
    assert len(before) > 10
    assert all(any(str(path) in trace for trace in before) for path in left)
    length = left[-1].stat().st_size
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join([gone[0], "", f" {kept}", *gone[1:]]) + "\n")
    said = json.loads(derm(home, "forget", "--entity", "user", "--file", str(listed), "--json"))
    assert said["unknown_ids"] == [f" {kept}"]
    assert said["left"] == said["unproved"] == []
    assert said["masked"] == 2
    # What was refused stays known, without whom it was about.
    refusal = json.loads(left[1].read_text())
    assert refusal["refused"]
    assert "*" in refusal["found"]
    assert left[-1].stat().st_size == length
    assert [path.exists() for path in left] == [False, True, False, True]
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


def data_files(home: Path) -> dict[str, int]:
    """Every data file of the lake, and when it was written."""
    files = (home / "lake").glob("**/ds=*/**/*.parquet")
    return {str(f): f.stat().st_mtime_ns for f in files}


def test_who_was_never_here_is_named_and_nobody_else_is_touched(home: Path) -> None:
    before = data_files(home)
    said = derm(home, "forget", "--entity", "user", "--id", "nosuch", "--id", "u 1\n")
    assert "2 were not there: 'nosuch' 'u 1\\n'" in said
    assert "are gone" not in said
    assert "source files" in said
    derm(home, "forget", "--entity", "pin", "--id", "nosuch")
    assert data_files(home) == before


def test_thousands_are_deleted_by_somebody_who_counts_them(home: Path, tmp_path: Path) -> None:
    listed = tmp_path / "many.txt"
    listed.write_text("".join(f"nobody{i}\n" for i in range(1001)))
    arguments = ("forget", "--entity", "user", "--file", str(listed))
    for said in ((), ("--confirm", "1000")):
        process = start(home, *arguments, *said, stdin=subprocess.DEVNULL)
        assert "expected: --confirm 1001" in process.communicate()[1]
        assert process.returncode == 2
    assert not (home / "forgotten" / "begun.json").exists()
    assert "1001 were not there" in derm(home, *arguments, "--confirm", "1001")


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
    said = json.loads(derm(home, "forget", "--entity", "user", "--id", user, "--json"))
    assert said["unknown_ids"] == []
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
    shown = {day["ds"]: day for day in json.loads(derm(home, "status", "--json"))["days"]}
    assert all(shown[ds]["complete"] for ds in DAYS), shown
    # That its gate was refused, while others were being forgotten, is still known.
    assert shown[NEXT]["first_open"]["step"] == "gate"
    derm(home, "run", "--from", NEXT, "--to", NEXT)
    assert json.loads(derm(home, "status", "--json"))["published"]["ds"] == NEXT
    for upstream in UPSTREAMS:
        publish = ManifestStore(home / "manifests").get("publish", NEXT, upstream)
        assert publish
        assert publish.metrics["full"] == 0
