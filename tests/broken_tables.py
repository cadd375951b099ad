"""Ways to break a day's source tables, and what the refusal must say of each."""

import datetime as dt
import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.config import toy
from simulator.spec import world_spec

Change = Callable[[pa.Table], pa.Table]


def retyped(name: str, kind: pa.DataType) -> Change:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        return table.set_column(index, name, table[name].cast(kind))

    return apply


def replaced(name: str, values: Callable[[pa.Table], object]) -> Change:
    def apply(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        column = values(table)
        array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
        return table.set_column(index, pa.field(name, array.type), array)

    return apply


def first_rows(name: str, *bad: object) -> Change:
    """The same column with its first values replaced."""

    def values(table: pa.Table) -> pa.Array:
        kept = table[name].slice(len(bad)).to_pylist()
        return pa.array([*bad, *kept], table.schema.field(name).type)

    return replaced(name, values)


def first_late(name: str, bad: object) -> Change:
    """The same column with its value on the first late row replaced."""

    def values(table: pa.Table) -> pa.Array:
        row = pc.index(pc.is_valid(table["arrived_at"]), True).as_py()
        column = table[name].to_pylist()
        column[row] = bad
        return pa.array(column, table.schema.field(name).type)

    return replaced(name, values)


def dropped(name: str) -> Change:
    return lambda table: table.drop([name])


def nan_vectors(table: pa.Table) -> pa.Array:
    vectors = [np.frombuffer(v.as_py(), "<f4").copy() for v in table["content"]]
    vectors[3][5] = np.nan
    return pa.array([v.tobytes() for v in vectors], pa.binary())


def without_pin_of(row: int) -> Change:
    """Pins without the one that an early event shows."""
    return lambda table: table.filter(pc.not_equal(table["pin_id"], table["pin_id"][row]))


YESTERDAY = dt.datetime(2025, 3, 1, 23, 59, 59, 999999, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)
NOON = dt.datetime(2025, 3, 2, 12, tzinfo=dt.UTC)
TOMORROW = dt.datetime(2025, 3, 3, tzinfo=dt.UTC)
LABELS = tuple(dict.fromkeys(x.name for x in world_spec(toy()).labels))
LONG = [f"p{i}" for i in range(51)]

ODD = ("an id of at most 256 bytes", "without a blank at either end")
FAR = ("events.ts", "a time of the years 1970 to 2148", "one of about the year 55000")


def far_away(kind: pa.DataType) -> Change:
    """The first event in the year 55,000, which no calendar of Python knows."""
    seconds = (55_000 - 1970) * 31_556_952
    scale = {"s": 1, "us": 1_000_000}[kind.unit]

    def change(table: pa.Table) -> pa.Table:
        times = table["ts"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy().copy()
        times = times // (1_000_000 // scale)
        times[0] = seconds * scale
        column = pa.array(times, pa.int64()).cast(kind)
        return table.set_column(table.column_names.index("ts"), "ts", column)

    return change


CASES: dict[str, tuple[str, Change, tuple[str, ...]]] = {
    "empty_events": ("events", lambda t: t.slice(0, 0), ("events of", "at least one row")),
    "empty_users": ("users", lambda t: t.slice(0, 0), ("users of", "at least one row")),
    "empty_pins": ("pins", lambda t: t.slice(0, 0), ("pins of", "at least one row")),
    "missing_column": ("events", dropped("surface"), ("events.surface", "expected the column")),
    "missing_label": ("events", dropped("click"), ("events.click", "expected the column")),
    "missing_feature": ("users", dropped("country"), ("users.country", "expected the column")),
    "missing_key": ("pins", dropped("pin_id"), ("pins.pin_id", "expected the column")),
    "float_id": (
        "events",
        replaced("user_id", lambda t: np.arange(t.num_rows) * 1.0),
        ("events.user_id", "type string", "found double"),
    ),
    "string_number": (
        "pins",
        replaced("price", lambda t: ["cheap"] * t.num_rows),
        ("pins.price", "type float32", "found string"),
    ),
    "float_label": (
        "events",
        retyped("click", pa.float64()),
        ("events.click", "type int8", "found double"),
    ),
    "naive_time": (
        "events",
        retyped("ts", pa.timestamp("us")),
        ("events.ts", "type timestamp", "found timestamp[us]"),
    ),
    "naive_time_says_so": (
        "events",
        retyped("ts", pa.timestamp("us")),
        ("type timestamp with a time zone", "write them as timestamp[us, tz=UTC]"),
    ),
    "far_time": ("events", far_away(pa.timestamp("us", tz="UTC")), FAR),
    "far_time_in_seconds": ("events", far_away(pa.timestamp("s", tz="UTC")), FAR),
    "padded_id": ("users", first_rows("user_id", " u1 "), ("users.user_id", *ODD, "' u1 '")),
    "line_id": ("pins", first_rows("pin_id", "p\n1"), ("pins.pin_id", *ODD, "'p\\n1'")),
    "nul_id": ("events", first_rows("event_id", "e1\0"), ("events.event_id", *ODD, "'e1\\x00'")),
    "unseen_id": ("events", first_rows("user_id", "u\u200b1"), ("events.user_id", *ODD)),
    "long_id": (
        "pins",
        first_rows("pin_id", "p" * 5000),
        ("pins.pin_id", *ODD, f"'{'p' * 79}... (5002 characters)"),
    ),
    "odd_id_in_a_list": (
        "users",
        replaced("engaged_pins", lambda t: [["p1", "p1\t"]] * t.num_rows),
        ("users.engaged_pins", *ODD, "'p1\\t'"),
    ),
    "numeric_time": ("events", retyped("ts", pa.int64()), ("events.ts", "found int64")),
    "string_list": (
        "users",
        replaced("engaged_pins", lambda t: ["p1,p2"] * t.num_rows),
        ("users.engaged_pins", "type list<string>", "found string"),
    ),
    "null_key": ("events", first_rows("event_id", None), ("events.event_id", "1 nulls in")),
    "null_user": ("events", first_rows("user_id", None, None), ("events.user_id", "2 nulls in")),
    "null_snapshot_key": ("users", first_rows("user_id", None), ("users.user_id", "1 nulls")),
    "null_list": ("users", first_rows("interests", None), ("users.interests", "1 nulls")),
    "null_element": (
        "users",
        replaced("interests", lambda t: [["topic_01", None]] * t.num_rows),
        ("users.interests", "no null elements"),
    ),
    "empty_key": ("pins", first_rows("pin_id", ""), ("pins.pin_id", "a key that is not empty")),
    "duplicate_event": (
        "events",
        lambda t: pa.concat_tables([t, t.slice(0, 5)]),
        ("events.event_id", "unique keys", "5 of", "e0001-0000", ", ..."),
    ),
    "duplicate_user": (
        "users",
        lambda t: pa.concat_tables([t, t.slice(7, 1)]),
        ("users.user_id", "unique keys", "1 of"),
    ),
    "too_late": ("events", first_rows("ts", TOMORROW), ("events.ts", "2025-03-03 00:00:00")),
    "label_two": ("events", first_rows("click", 2), ("events.click", "values <= 1", "1 of", ": 2")),
    "label_minus": ("events", first_rows("conversion", -1), ("events.conversion", "values >= 0")),
    "label_huge": (
        "events",
        replaced("click", lambda t: [300] * t.num_rows),
        ("events.click", "type int8", "300"),
    ),
    "unknown_surface": (
        "events",
        first_rows("surface", "XX", "XX", "YY"),
        ("events.surface", "one of HF RP SR", "'XX', 'YY'"),
    ),
    "unknown_action": ("events", first_rows("action", "buy"), ("events.action", "'buy'")),
    "negative_duration": ("events", first_rows("duration_s", -1.0), ("events.duration_s", ">= 0")),
    "nan_feature": (
        "users",
        first_rows("tenure_days", float("nan"), float("inf")),
        ("users.tenure_days", "finite numbers", "2 of"),
    ),
    "infinite_context": (
        "events",
        first_rows("position", float("-inf")),
        ("events.position", "finite numbers", "-inf"),
    ),
    "nan_vector": ("pins", replaced("content", nan_vectors), ("pins.content", "finite vectors")),
    "short_vector": (
        "pins",
        first_rows("content", b"1234"),
        ("pins.content", "64 float32 (256 bytes)", "1 of", ": 4"),
    ),
    "long_sequence": (
        "users",
        first_rows("engaged_pins", LONG),
        ("users.engaged_pins", "at most 50 elements", ": 51"),
    ),
    "label_of_nothing": (
        "events",
        first_late("impression_id", None),
        ("events.arrived_at", "arrived_at and impression_id together", "-late"),
    ),
    "label_of_tomorrow": (
        "events",
        first_late("arrived_at", TOMORROW),
        ("events.ts", "a time within the day (UTC)", "2025-03-03"),
    ),
    "label_of_today": (
        "events",
        first_late("ts", NOON),
        ("events.arrived_at", "a later day than that of ts, and at most 30 days after it"),
    ),
    "label_of_long_ago": (
        "events",
        first_late("ts", LONG_AGO),
        ("events.arrived_at", "a later day than that of ts, and at most 30 days after it"),
    ),
    "late_no": (
        "events",
        lambda t: functools.reduce(lambda x, name: first_late(name, 0)(x), LABELS, t),
        ("events.impression_id", "a late row with a label that is 1", "-late"),
    ),
    "late_at_another_time": (
        "events",
        first_late("ts", YESTERDAY),
        ("events.ts", "what its impression of 2025-03-01 carries", "-late"),
    ),
    "late_by_another_user": (
        "events",
        first_late("user_id", "u0000007"),
        ("events.user_id", "what its impression of 2025-03-01 carries"),
    ),
    "late_in_another_context": (
        "events",
        first_late("position", 77.0),
        ("events.position", "what its impression of 2025-03-01 carries"),
    ),
    "unknown_pin": ("pins", without_pin_of(0), ("events.pin_id", "every pin of the events")),
    "unknown_user": ("users", lambda t: t.slice(900), ("events.user_id", "every user", ", ...")),
    "doubled_column": (
        "users",
        lambda t: t.append_column("country", t["country"]),
        ("users.country", "one column of a name"),
    ),
}
