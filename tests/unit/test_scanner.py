"""The scanner finds an id wherever it was planted, and nobody else's."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from jobs.services.redis import ensure_redis, persist, stop_redis
from jobs.settings import Settings
from jobs.upkeep.leftovers import mask
from jobs.upkeep.scanner import Wanted, scan

ID, OTHER, SHORT = "user-4711", "user-47112", "42"


def parquet(path: Path, ids: list[str]) -> None:
    pq.write_table(pa.table({"who": ids, "n": range(len(ids))}), path, compression="zstd")


def nested(path: Path, ids: list[str]) -> None:
    pq.write_table(pa.table({"seen": [ids, []], "of": [{"id": i} for i in ids[:2]]}), path)


def arrow(path: Path, ids: list[str]) -> None:
    rows = pa.table({"who": ids})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(path, rows.schema, options=options) as writer:
        writer.write_table(rows)


def sqlite(path: Path, ids: list[str]) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE log (who TEXT)")
        database.executemany("INSERT INTO log VALUES (?)", [(i,) for i in ids])
        database.commit()


def npz(path: Path, ids: list[str]) -> None:
    with path.open("wb") as file:
        np.savez(file, ids=np.array(ids, np.bytes_))


def array(path: Path, ids: list[str], kind: type = np.bytes_) -> None:
    with path.open("wb") as file:
        np.save(file, np.array(ids, kind))


PLACES: dict[str, Callable[[Path, list[str]], object]] = {
    "parquet": parquet,
    "nested": nested,
    "arrow": arrow,
    "sqlite": sqlite,
    "numpy": array,
    "numpy text": lambda path, ids: array(path, ids, np.str_),
    "npz": npz,
}
BYTES: dict[str, Callable[[list[str]], bytes]] = {
    "text": lambda ids: f"found {ids!r}\n".encode(),
    "UTF-16": lambda ids: " ".join(ids).encode("utf-16"),
    "UTF-16 BE": lambda ids: ("x " + " ".join(ids)).encode("utf-16-be"),
    "JSON": lambda ids: json.dumps({"found": json.dumps(ids)}).encode(),
    "gzip": lambda ids: gzip.compress(" ".join(ids).encode()),
    "length before it": lambda ids: b"A".join(
        len(i.encode()).to_bytes(4, "little") + i.encode() for i in ids
    ),
    "across two pieces": lambda ids: bytes((4 << 20) - 3) + " ".join(ids).encode(),
    "at the end": lambda ids: b" ".join(i.encode() for i in reversed(ids)),
}


def found(path: Path, *ids: str) -> set[str]:
    return {i for trace in scan([path], Wanted(ids)) for i in trace.ids}


@pytest.mark.parametrize("place", PLACES)
def test_values_are_found_whole_short_ones_too(tmp_path: Path, place: str) -> None:
    path = tmp_path / "file"
    PLACES[place](path, [ID, SHORT])
    assert found(path, ID, SHORT, "nobody-here") == {ID, SHORT}
    PLACES[place](path, [OTHER, "421", "042"])
    assert found(path, ID, SHORT) == set()


@pytest.mark.parametrize("place", BYTES)
@pytest.mark.parametrize("entity_id", [ID, "caf\u00e9 42", "a:b/c d"])
def test_bytes_are_searched_for_words(tmp_path: Path, place: str, entity_id: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(BYTES[place]([entity_id, "another"]))
    assert found(path, entity_id, "nobody-here") == {entity_id}
    path.write_bytes(BYTES[place]([f"x{entity_id}", f"{entity_id}7", "another"]))
    assert found(path, entity_id) == set()


def test_an_entry_of_a_dictionary_that_no_row_uses_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    everybody = pa.DictionaryArray.from_arrays(pa.array([1, 1], pa.int32()), pa.array([ID, OTHER]))
    pq.write_table(pa.table({"who": everybody}), path)
    assert pq.read_table(path)["who"].to_pylist() == [OTHER, OTHER]
    assert found(path, ID) == {ID}


def test_a_dump_of_redis_is_read_key_by_key(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    try:
        client = redis.Redis.from_url(ensure_redis(settings))
        # Behind the key stands the length of the value, which looks like a letter.
        client.mset({f"derm:ctr:0:a:{i}": b"x" * 264 for i in (ID, SHORT)})
        client.set("derm:ctr:0:a:gone-soon", "1", ex=1000)
        client.set("derm:number", 12345)
        persist(settings)
        dump = tmp_path / "services" / "redis" / "users.rdb"
        assert found(dump, ID, SHORT, "gone-soon", "nobody-here") == {ID, SHORT, "gone-soon"}
        client.delete(f"derm:ctr:0:a:{ID}", f"derm:ctr:0:a:{SHORT}")
        persist(settings)
        assert found(dump, ID, SHORT) == set()
    finally:
        stop_redis(tmp_path)


def test_a_short_id_is_no_word_among_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("42 rows in 42 s")
    assert found(path, SHORT) == set()


def test_a_damaged_file_is_searched_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"PAR1" + ID.encode() + bytes(20))
    assert found(path, ID) == set()  # `PAR1` is in front of it, and makes it a longer word
    path.write_bytes(b"PAR1\0" + ID.encode() + bytes(20))
    assert found(path, ID) == {ID}


def test_in_logs_an_id_is_overwritten_where_it_stands(tmp_path: Path) -> None:
    log = tmp_path / "services" / "airflow" / "logs" / "dag_id=d" / "attempt=1.log"
    log.parent.mkdir(parents=True)
    before = f"42 rows, 3 of them wrong: '42', {ID!r}, {OTHER!r}; caf\u00e9 1 and u'x\n"
    log.write_text(before)
    with log.open("a") as writer:
        assert mask(tmp_path, [ID, SHORT, "caf\u00e9 1", "nobody-here"]) == 1
        writer.write("and on\n")
    expected = before.replace("'42'", "'**'").replace(f"{ID!r}", f"'{'*' * len(ID)}'")
    assert log.read_text() == expected.replace("caf\u00e9 1", "*" * 7) + "and on\n"
    assert mask(tmp_path, [ID, SHORT]) == 0
