"""`derm tables` from serving to a rollback, and forgetting what is served."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.client.tables import TableClient
from feature_store.contracts.hashing import key_of
from feature_store.tables.writer import VersionWriter
from jobs.cli import main
from jobs.services import processes, tables
from jobs.settings import Settings
from jobs.upkeep import served_tables
from jobs.upkeep.served_tables import forget_served
from tests.table_shards import SHARDS, shards_in_threads
from tests.table_versions import DIM, default_of_version, rows_of_version, write_small


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(home=tmp_path / "home")
    for number in (1, 2):
        write_small(settings.paths.tables, f"v{number}", number, tables=("users", "pins"))
    yield settings
    processes.stop(settings.home.absolute())


def test_the_command_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DERM_HOME", str(settings.home))

    def derm(*arguments: str) -> tuple[int, str]:
        code = main(["tables", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    code, said = derm("serve", "--json")
    assert [s["shard"] for s in json.loads(said)["shards"]] == [0, 1]
    assert derm("publish", "v1")[0] == 0
    code, said = derm("publish", "v2", "--json")
    assert json.loads(said.splitlines()[0])["pointer"]["previous"] == "v1"
    assert derm("rollback")[1].startswith("v1 is live")
    metrics = settings.home / "tables.prom"
    code, said = derm("status", "--metrics", str(metrics))
    assert (code, "live: v1" in said) == (0, True)
    assert 'derm_tables_state{shard="0",state="live",version="v1"} 1.0' in metrics.read_text()
    code, said = derm("publish", "v9")
    assert (code, "no version v9" in said) == (2, True)
    assert derm("publish")[0] == 2
    code, said = derm("serve", "--shard", "0", "--listen", "tcp://0.0.0.0:1")
    assert (code, "DERM_TABLE_TOKEN" in said) == (2, True)
    own = settings.paths.shard_metrics(1)
    until = time.monotonic() + 60
    while not own.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert 'derm_tables_live_epoch{shard="1"}' in own.read_text()
    processes.stop(settings.home.absolute())
    code, said = derm("status", "--json")
    assert (code, "error" in said) == (1, True)


def test_forgetting_ends_when_no_shard_serves_the_rows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, root = ["u1", "u2", "ünï"], settings.paths.tables
    keys = key_of(names)
    for number in (1, 2):
        with VersionWriter(root, version=f"w{number}", shards=SHARDS) as version:
            for table, entity in (("users", "user"), ("pins", "pin")):
                with version.table(
                    table, bits=4, dim=DIM, default=default_of_version(number), entity=entity
                ) as writer:
                    writer.add(keys, rows_of_version(number, keys))
    with shards_in_threads(settings):
        client = TableClient(tables.addresses(settings, SHARDS), timeout_s=5)
        for number in (1, 2):
            tables.publish(root, client, f"w{number}", within_s=20)
        served = [client.describe(f"w{number}") for number in (1, 2)]
        found, unproved = forget_served(settings, "user", names[:2])
        assert unproved == ()
        assert {k: n for k, n in found.items() if "/w" in k} == {
            "tables/w1/users": 2,
            "tables/w2/users": 2,
        }
        for version in served:
            rows = client.fetch(version, {"users": keys, "pins": keys})
            assert rows.known["users"].tolist() == [False, False, True]
            assert rows.known["pins"].all()
            assert (rows.values["users"][0] == rows.values["users"][1]).all()
        client.close()
    # Whoever does not answer may serve them still; that is said.
    monkeypatch.setattr(served_tables, "_WITHIN_S", 0.1)
    found, unproved = forget_served(settings, "user", names[:2])
    assert found == {}
    assert "may still serve" in unproved[0]
