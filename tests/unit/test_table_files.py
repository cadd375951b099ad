"""Versions of tables as files: what is written is found, and what was damaged is never served."""

import json
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.errors import (
    ContractViolation,
    DamagedFile,
    InputError,
    ManifestCorrupt,
    MissingInput,
    StoreError,
)
from feature_store.contracts.hashing import key_of, mix64
from feature_store.contracts.sealed import sealed
from feature_store.tables import forgetting
from feature_store.tables.directory import NOBODY, Directory, shard_of
from feature_store.tables.kernels import KERNELS, numpy_kernel
from feature_store.tables.manifest import known_versions, read_version
from feature_store.tables.rowwise import RowFormat
from feature_store.tables.shard import check_everything, open_dense, open_shard
from feature_store.tables.writer import VersionWriter
from tests.table_versions import DIM, IDS, default_of_version, rows_of_version, write_small


def _everything(root: Path, version: str, shards: int = 2) -> np.ndarray:
    """The values of all ids, each from its own shard."""
    values = np.empty((len(IDS), DIM), np.float32)
    for shard in range(shards):
        mine = shard_of(IDS, shards) == shard
        table = open_shard(root, version, shard, shards).tables["users"]
        values[mine] = table.look_up(IDS[mine], numpy_kernel)
    return values


def _write(
    root: Path,
    ids: np.ndarray,
    rows: np.ndarray,
    *,
    default: np.ndarray | None = None,
    shards: int = 1,
) -> None:
    """A version `v` of one table `t`, in one block."""
    dim = rows.shape[1]
    base = np.zeros(dim) if default is None else default
    with (
        VersionWriter(root, version="v", shards=shards) as version,
        version.table("t", bits=4, dim=dim, default=base) as table,
    ):
        table.add(ids, rows)


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_what_is_written_is_found(tmp_path: Path, shards: int) -> None:
    write_small(tmp_path, "v3", 3, shards=shards)
    assert known_versions(tmp_path) == ("v3",)
    assert (_everything(tmp_path, "v3", shards) == rows_of_version(3)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["v3"]
    assert check_everything(tmp_path, "v3") > 0


def test_eight_bits(tmp_path: Path) -> None:
    write_small(tmp_path, "v", 3, bits=8)
    assert np.abs(_everything(tmp_path, "v") - rows_of_version(3)).max() <= 0.03


def test_an_id_that_is_not_there_has_the_default_row(tmp_path: Path) -> None:
    write_small(tmp_path, "v", 2, shards=1)
    table = open_shard(tmp_path, "v", 0).tables["users"]
    strangers = np.array([10**15, NOBODY, 0], np.int64)
    packed, known = table.find(np.concatenate([IDS[:2], strangers]))
    assert known.tolist() == [True, True, False, False, False]
    assert (table.form.decode(packed)[2:] == default_of_version(2)).all()


def test_bytes_on_disk(tmp_path: Path) -> None:
    """The layout that docs/specs/id_tables.md states, read without this project's reader."""
    ids = np.array([11, 22, 33], np.int64)
    rows = np.array([np.arange(16), np.arange(16) + 1, np.zeros(16)], np.float32)
    _write(tmp_path, ids, rows, default=np.ones(16))
    order = sorted(range(3), key=lambda n: int(mix64(ids)[n]))
    folder = tmp_path / "v" / "t"
    assert (folder / "00000.0.ids").read_bytes() == ids[order].astype("<i8").tobytes()
    packed = (folder / "00000.0.rows").read_bytes()
    # Twelve bytes a row. All ones: 15 codes of a scale that is rounding, here exactly 1.
    assert packed[:12] == bytes(8) + bytes.fromhex("003c 003c")
    place = 12 * (1 + order.index(0))
    assert packed[place : place + 12] == bytes.fromhex("1032547698badcfe 003c 0000")
    starts = np.frombuffer((folder / "00000.0.starts").read_bytes(), "<u4")
    first_bits = [int(mix64(ids)[n]) >> 63 for n in order]
    assert starts.tolist() == [0, first_bits.count(0), 3]


def test_known_hashes() -> None:
    assert mix64(np.array([1], np.int64))[0] == 0xB456BCFC34C2CB2C
    assert mix64(np.array([0], np.int64))[0] == 0
    texts = ["", "u7", "ünïcode", "a" * 40]
    assert key_of(texts).tolist() == [_by_hand(t) for t in texts]
    assert key_of([]).tolist() == []


def _by_hand(text: str) -> int:
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor % 2**64
    h ^= h >> 33
    return h - 2**64 if h >= 2**63 else h


def test_dense_weights_travel_with_the_tables(tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"trained together")
    write_small(tmp_path / "root", "v", 1, dense=weights)
    path = open_dense(tmp_path / "root", "v")["weights.bin"]
    assert path.read_bytes() == b"trained together"
    path.write_bytes(b"trained t0gether")
    with pytest.raises(DamagedFile, match="version v, dense weights"):
        open_dense(tmp_path / "root", "v")


@pytest.mark.parametrize("part", ["ids", "starts", "rows"])
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone"])
def test_a_damaged_file_is_named_with_its_place(tmp_path: Path, part: str, damage: str) -> None:
    write_small(tmp_path, "v", 1)
    path = tmp_path / "v" / "users" / f"00001.0.{part}"
    content = bytearray(path.read_bytes())
    at = len(content) // 2 - 5
    if damage == "flip":
        content[at] ^= 4
        place = f"offset {at // 1024 * 1024} to "
    elif damage == "cut":
        del content[at:]
        place = f"offset {at}"
    else:
        place = f"offset {len(content)}"
        content += b"!"
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
        place = path.name
    with pytest.raises(DamagedFile, match=f"version v, table users, shard 1, .*{place}"):
        open_shard(tmp_path, "v", 1)
    open_shard(tmp_path, "v", 0)  # the other shard is whole


def _reseal(tmp_path: Path, **changes: object) -> None:
    path = tmp_path / "v" / "manifest.json"
    document = json.loads(path.read_text())
    del document["checksum"]
    path.write_text(sealed(json.dumps({**document, **changes})))


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path, "v", 1)
    path = tmp_path / "v" / "manifest.json"
    path.write_text(path.read_text().replace('"dim": 8', '"dim": 6'))
    with pytest.raises(ManifestCorrupt, match="not the one that was written"):
        open_shard(tmp_path, "v", 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "expected format 1, found 2"),
        ({"version": "w"}, "holds another version"),
        ({"shards": 3}, "expected 3 shards"),
        ({"tables": [{}]}, "cannot be read"),
    ],
)
def test_a_manifest_that_does_not_fit(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    write_small(tmp_path, "v", 1)
    _reseal(tmp_path, **changes)
    with pytest.raises(ManifestCorrupt, match=said):
        read_version(tmp_path, "v")


def test_one_name_of_two_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two tables of version v have the name users"):
        write_small(tmp_path, "v", 1, tables=("users", "users"))
    assert known_versions(tmp_path) == ()
    write_small(tmp_path, "v", 1)
    tables = json.loads((tmp_path / "v" / "manifest.json").read_text())["tables"]
    _reseal(tmp_path, tables=[*tables, *tables])
    with pytest.raises(ManifestCorrupt, match="a table is there twice"):
        read_version(tmp_path, "v")


def test_a_version_is_written_once_and_by_one(tmp_path: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with VersionWriter(tmp_path, version="v", shards=1):
            writing.set()
            go_on.wait(20)

    thread = threading.Thread(target=write)
    thread.start()
    assert writing.wait(20)
    with pytest.raises(InputError, match="another process is writing version v"):
        write_small(tmp_path, "v", 1)
    go_on.set()
    thread.join()
    with pytest.raises(InputError, match="version v is there already"):
        write_small(tmp_path, "v", 1)


def test_the_wrong_number_of_shards_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path, "v", 1)
    with pytest.raises(InputError, match="another number of shards"):
        open_shard(tmp_path, "v", 0, shards=3)
    with pytest.raises(MissingInput, match="no shard 2"):
        open_shard(tmp_path, "v", 2)
    with pytest.raises(MissingInput, match="no version w"):
        open_shard(tmp_path, "w", 0)


def _directory(ids: list[int]) -> Directory:
    array = np.array(ids, np.int64)
    return Directory.of(array[np.argsort(mix64(array))], "here")


def test_ids_of_another_shard_or_out_of_order_are_found() -> None:
    """Checksums cannot tell: a wrong writer has sealed its mistake."""
    ids = IDS[shard_of(IDS, 2) == 0]
    whole = _directory(ids.tolist())
    whole.check(0, 2, "here")
    with pytest.raises(DamagedFile, match="offset 0"):
        whole.check(1, 2, "here")
    swapped = whole.ids.copy()
    swapped[[5, 6]] = swapped[[6, 5]]
    for wrong in (swapped, np.repeat(whole.ids[::2], 2)[: len(whole.ids)]):
        with pytest.raises(DamagedFile, match=r"out of order|another bucket"):
            Directory(wrong, whole.starts, whole.bucket_bits, whole.window).check(0, 2, "here")
    moved = whole.starts.copy()
    moved[3] += 1
    with pytest.raises(DamagedFile):
        Directory(whole.ids, moved, whole.bucket_bits, whole.window).check(0, 2, "here")


def test_an_empty_shard_and_all_ids_on_one(tmp_path: Path) -> None:
    ids = IDS[shard_of(IDS, 2) == 1]
    _write(tmp_path, ids, rows_of_version(1, ids), default=default_of_version(1), shards=2)
    empty, full = (open_shard(tmp_path, "v", shard).tables["t"] for shard in (0, 1))
    assert (empty.look_up(ids, numpy_kernel) == default_of_version(1)).all()
    thrice = np.repeat(ids, 3)
    assert (full.look_up(thrice, numpy_kernel) == rows_of_version(1, thrice)).all()


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.array([1, 2, 1], np.int64), "an id has two rows"),
        (np.array([1, NOBODY, 3], np.int64), "nobody's id"),
        (np.array([1, 2], np.int64), "an int64 id each"),
        (np.array([1, 2, 3], np.int32), "an int64 id each"),
    ],
)
def test_ids_that_cannot_be(tmp_path: Path, ids: np.ndarray, said: str) -> None:
    with pytest.raises(ContractViolation, match=said):
        _write(tmp_path, ids, np.zeros((3, DIM), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_bad_row_leaves_no_version(tmp_path: Path) -> None:
    rows = rows_of_version(1)
    rows[77, 2] = np.nan
    with pytest.raises(ContractViolation, match="version v, table t, row 77"):
        _write(tmp_path, IDS, rows)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_version(tmp_path: Path) -> None:
    write_small(tmp_path, "before", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(StoreError, match="could not be written"):
            write_small(tmp_path, "v", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert known_versions(tmp_path) == ("before",)
    write_small(tmp_path, "v", 1)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 65])
def test_a_name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot have this name"):
        VersionWriter(tmp_path, version=name, shards=1)


def test_rows_beyond_two_to_the_31_values(tmp_path: Path) -> None:
    """70 million rows of 32 are more values than an int32 counts: a sparse file of that size."""
    form, last = RowFormat(bits=4, dim=32), 70_000_000
    with (tmp_path / "rows").open("wb") as file:
        file.seek(last * form.row_bytes)
        file.write(form.encode(np.arange(32)[None]).tobytes())
    packed = np.memmap(tmp_path / "rows", np.uint8, "r").reshape(-1, form.row_bytes)
    for name in KERNELS:
        found = KERNELS[name](form, packed, np.array([last, 5, last]))
        assert np.abs(found[[0, 2]] - np.arange(32)).max() < 1.1
        assert not found[1].any()


def test_forgetting_zeroes_rows_in_every_version(tmp_path: Path) -> None:
    for number, version in enumerate(("v1", "v2"), start=1):
        write_small(tmp_path, version, number, tables=("users", "pins"))
    before = open_shard(tmp_path, "v1", 0).tables["users"]
    gone, stays = IDS[:5], IDS[5:]
    done = forgetting.forget_ids(tmp_path, np.append(gone, 10**15), "user")
    assert [(d.version, d.table, d.rows, d.revision) for d in done] == [
        ("v1", "users", 5, 1),
        ("v2", "users", 5, 1),
    ]
    for number, version in enumerate(("v1", "v2"), start=1):
        for shard in range(2):
            tables = open_shard(tmp_path, version, shard).tables
            mine = gone[shard_of(gone, 2) == shard]
            users = tables["users"]
            assert (users.look_up(mine, numpy_kernel) == default_of_version(number)).all()
            assert not users.packed[np.flatnonzero(users.directory.ids == NOBODY) + 1].any()
            assert tables["pins"].find(mine)[1].all()
            others = stays[shard_of(stays, 2) == shard]
            assert (users.look_up(others, numpy_kernel) == rows_of_version(number, others)).all()
        raw = b"".join(p.read_bytes() for p in (tmp_path / version / "users").iterdir())
        assert all(i.tobytes() not in raw for i in gone.astype("<i8"))
    # Who had the files mapped reads what was there until told otherwise.
    mine = gone[shard_of(gone, 2) == 0]
    assert before.find(mine)[1].all()
    assert forgetting.forget_ids(tmp_path, gone, "user") == ()


def test_a_forget_that_was_killed_is_finished_by_the_same_call(tmp_path: Path) -> None:
    write_small(tmp_path, "v", 1)
    users = tmp_path / "v" / "users"
    # Half of a shard was written anew, and no manifest names it.
    (users / "00000.1.ids").write_bytes(b"half")
    forgetting.forget_ids(tmp_path, IDS[:3])
    assert check_everything(tmp_path, "v")
    assert len(list(users.iterdir())) == 6
