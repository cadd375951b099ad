"""The wire of the id tables: golden bytes, frames in pieces, and what is no frame."""

import numpy as np
import pytest

from feature_store.contracts.errors import InputError, StoreError
from feature_store.tables.address import Address
from feature_store.tables.directory import shard_of
from feature_store.tables.fetching import Fetch, FetchCounts, ServedTable, ServedVersion
from feature_store.tables.ledger import FileLedger, Intent, Pointer, Superseded
from feature_store.tables.rowwise import RowFormat
from feature_store.tables.states import State, follows
from feature_store.tables.wire import (
    BrokenFrame,
    Code,
    Frame,
    FrameReader,
    Kind,
    LookupBody,
    RefusalBody,
    RowsBody,
    VersionMissing,
)

_FORM = RowFormat(bits=4, dim=8)
_IDS = np.array([7, -1], np.int64)
_LOOKUP = bytes.fromhex(
    "44545731 01 00 0100 02010000 28000000"
    "0200 0500 02000000 0000 00 00 00000000 7631 7573657273 00"
    "0700000000000000 ffffffffffffffff"
)
_ROWS = bytes.fromhex(
    "44545731 02 00 0100 02010000 29000000"
    "0200 0500 02000000 0800 04 00 08000000 7631 7573657273 00"
    "01 4098fb18443000bc 0000000000000000"
)
_ERROR = bytes.fromhex("44545731 03 00 0000 05000000 04000000 0100 6e6f")


def _rows(version: str = "v1", table: str = "users", form: RowFormat = _FORM) -> RowsBody:
    packed = np.zeros((2, form.row_bytes), np.uint8)
    if form == _FORM:
        packed[:1] = _FORM.encode(np.array([[-1, -0.5, 0, 0.25, 0.5, 1, 0.1, -0.9]]))
    return RowsBody(version, table, form, packed, np.array([True, False]))


def test_golden_bytes() -> None:
    assert Frame(Kind.LOOKUP, 1, 258, LookupBody("v1", "users", _IDS).pack()).pack() == _LOOKUP
    assert Frame(Kind.ROWS, 1, 258, _rows().pack()).pack() == _ROWS
    refusal = RefusalBody(Code.VERSION_MISSING, "no")
    assert Frame(Kind.ERROR, 0, 5, refusal.pack()).pack() == _ERROR


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_frames_that_come_in_pieces(step: int) -> None:
    reader, stream = FrameReader(), _LOOKUP + _ROWS + _ERROR
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    frames = [frame for piece in pieces for frame in reader.feed(piece)]
    assert [f.kind for f in frames] == [Kind.LOOKUP, Kind.ROWS, Kind.ERROR]
    asked, rows = LookupBody.parse(frames[0].body), RowsBody.parse(frames[1].body)
    assert (asked.version, asked.table, asked.ids.tolist()) == ("v1", "users", [7, -1])
    assert (rows.version, rows.table, rows.form) == ("v1", "users", _FORM)
    assert rows.known.tolist() == [True, False]
    assert (rows.packed == _rows().packed).all()
    assert RefusalBody.parse(frames[2].body) == RefusalBody(Code.VERSION_MISSING, "no")


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        _LOOKUP[:4] + b"\x09" + _LOOKUP[5:],
        _LOOKUP[:5] + b"\x01" + _LOOKUP[6:],
        _LOOKUP[:12] + b"\xff\xff\xff\xff" + _LOOKUP[16:],
    ],
)
def test_what_is_no_frame_is_refused(stream: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(FrameReader().feed(stream))


@pytest.mark.parametrize("cut", [3, 16, 20, 30, 39])
def test_a_body_that_is_cut_or_too_long_is_refused(cut: int) -> None:
    for kind, stream in ((LookupBody, _LOOKUP), (RowsBody, _ROWS)):
        with pytest.raises(BrokenFrame):
            kind.parse(stream[16 : 16 + cut])
        with pytest.raises(BrokenFrame):
            kind.parse(stream[16:] + b"!")


def _served(shards: int = 1) -> ServedVersion:
    default = _FORM.encode(np.full((1, 8), 3.0))
    return ServedVersion("v1", shards, 0, {"users": ServedTable("users", _FORM, default)})


@pytest.mark.parametrize(
    "rows",
    [
        _rows(version="v2"),
        _rows(table="pins"),
        _rows(form=RowFormat(bits=8, dim=8)),
        _rows(form=RowFormat(bits=4, dim=16)),
    ],
)
def test_other_rows_than_were_asked_for_are_never_used(rows: RowsBody) -> None:
    fetch = Fetch(_served(), {"users": _IDS}, 1, FetchCounts())
    fetch.receive(Frame(Kind.ROWS, 0, 1, rows.pack()))
    with pytest.raises(StoreError, match="other rows than it was asked for"):
        fetch.result()


def test_each_id_travels_once_and_comes_back_where_it_was_asked() -> None:
    ids = np.array([5, 9, 5, 5, 11, 9], np.int64)
    counts = FetchCounts()
    fetch = Fetch(_served(shards=3), {"users": ids}, 2**32 - 2, counts)
    asked = [(f, LookupBody.parse(f.body)) for f in fetch.frames]
    assert sorted(i for _, a in asked for i in a.ids.tolist()) == [5, 9, 11]
    for frame, request in reversed(asked):
        assert (shard_of(request.ids, 3) == frame.shard).all()
        values = np.repeat(request.ids[:, None], 8, 1).astype(np.float32)
        known = np.ones(len(values), np.bool_)
        rows = RowsBody("v1", "users", _FORM, _FORM.encode(values), known)
        answer = Frame(Kind.ROWS, frame.shard, frame.request, rows.pack())
        fetch.receive(answer)
        fetch.receive(answer)  # twice: the second changes nothing
    assert (fetch.result().values["users"] == ids[:, None]).all()
    assert (counts.ids, counts.distinct, counts.defaulted) == (6, 3, 0)


def test_late_and_overloaded_rows_are_default_rows_and_a_missing_version_is_none() -> None:
    fetch = Fetch(_served(), {"users": _IDS}, 1, FetchCounts())
    assert fetch.lose() == 1
    found = fetch.result()
    assert (found.values["users"] == 3).all()
    assert (found.defaulted, found.known["users"].any()) == (2, False)
    fetch = Fetch(_served(), {"users": _IDS}, 1, FetchCounts())
    fetch.receive(Frame(Kind.ERROR, 0, 1, RefusalBody(Code.OVERLOAD, "").pack()))
    assert fetch.result().defaulted == 2
    fetch = Fetch(_served(), {"users": _IDS}, 1, FetchCounts())
    fetch.receive(Frame(Kind.ERROR, 0, 1, RefusalBody(Code.VERSION_MISSING, "gone").pack()))
    with pytest.raises(VersionMissing, match="version v1"):
        fetch.result()


def test_no_ids_at_all() -> None:
    fetch = Fetch(_served(), {"users": _IDS[:0]}, 1, FetchCounts())
    assert fetch.done
    assert fetch.result().values["users"].shape == (0, 8)


def test_the_ledger_lets_only_the_newest_publication_become_live(tmp_path) -> None:
    ledger = FileLedger(tmp_path)
    assert (ledger.pointer(), ledger.intent()) == (None, None)
    slow, fast = ledger.begin("v1"), ledger.begin("v2")
    assert (slow.epoch, fast.epoch) == (1, 2)
    with pytest.raises(Superseded, match="version v1 was overtaken"):
        ledger.flip(slow)
    assert ledger.flip(fast) == Pointer(epoch=2, version="v2")
    assert ledger.flip(ledger.begin("v3")) == Pointer(epoch=3, version="v3", previous="v2")
    # The same again, and back.
    assert ledger.flip(ledger.begin("v3")).previous == "v2"
    assert ledger.flip(ledger.begin("v2")) == Pointer(epoch=5, version="v2", previous="v3")
    assert FileLedger(tmp_path).intent() == Intent(epoch=5, version="v2")
    (tmp_path / "current.json").write_text('{"epoch": "many"}')
    with pytest.raises(InputError, match="cannot be read"):
        ledger.pointer()


def test_what_is_live_is_never_dropped_at_once() -> None:
    assert not follows(State.LIVE, State.GONE)
    assert [s for s in State if follows(State.LOADING, s)] == [State.READY, State.GONE]
    assert {s for s in State if follows(s, State.LIVE)} == {State.READY, State.DRAINING}


def test_addresses() -> None:
    for text in ("unix:///run/derm/0.sock", "tcp://10.0.0.1:7400", "tcp://shard-0:7400"):
        assert str(Address.parse(text)) == text
    private = ["unix:///a", "tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1"]
    assert [Address.parse(a).is_private for a in private] == [True] * 4
    assert not Address.parse("tcp://0.0.0.0:1").is_private
    for text in (
        "",
        "unix:///"[:7],
        "unix:relative",
        "tcp://host",
        "tcp://host:port",
        "redis://x",
        "tcp://h:70000",
    ):
        with pytest.raises(InputError, match="malformed"):
            Address.parse(text)
