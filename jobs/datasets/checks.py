"""The rules of a day's tables, checked by column; every broken one is reported at once.

`conform` brings loosely typed source columns into the declared types. `check_tables` holds the
rules that need no other day. Both note problems instead of raising; `Problems.refuse` raises once.
"""

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import ContractViolation, MissingInput
from feature_store.contracts.tables import ID_RULE, Column, Table
from feature_store.lake.filing import filed_at, impressions, is_late
from feature_store.lake.schemas import arrow_schema, arrow_type, unpack
from jobs.datasets.identifiers import odd_ids

_MAX_SAMPLES = 3
_SHOWN = 80
# The online format counts days since 1970 in 16 bits.
_YEARS = "a time of the years 1970 to 2148"
_FIRST, _END = (
    pa.scalar(dt.datetime(year, 1, 1, tzinfo=dt.UTC), pa.timestamp("us", tz="UTC"))
    for year in (1970, 2149)
)
_YEAR_US = 31_556_952_000_000
_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Problems:
    """Broken rules of one day, in the order they were found.

    Attributes:
        names: by table, the columns of the user's files that declared columns are read from.
        found: one line each: table, day, column, rule, offending count and samples.
    """

    ds: str
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    only_missing: bool = True

    def add(
        self, table: str, column: str = "", *, rule: str, found: str, missing: bool = False
    ) -> None:
        """Note a broken rule; `missing` when something is not there at all."""
        where = f"{table}.{column}" if column else table
        theirs = self.names.get(table, {}).get(column, column)
        if theirs != column:
            where += f" (your column {theirs!r})"
        self.found.append(f"{where} of {self.ds}: expected {rule}; found {found}")
        self.only_missing &= missing

    def add_rows(self, table: str, column: str, rule: str, bad: pa.Array, total: int) -> None:
        """Note the values of the rows that break a rule; nothing when there are none."""
        if len(bad) == 0:
            return
        samples = ", ".join(_shown(v) for v in bad.slice(0, _MAX_SAMPLES))
        more = ", ..." if len(bad) > _MAX_SAMPLES else ""
        self.add(table, column, rule=rule, found=f"{len(bad)} of {total} rows: {samples}{more}")

    def refuse(self, hint: str) -> None:
        """Raise if anything was noted.

        Raises:
            MissingInput: things are missing, and nothing else is wrong.
            ContractViolation: anything is wrong.
        """
        if not self.found:
            return
        kind = MissingInput if self.only_missing else ContractViolation
        count = f"{len(self.found)} problem{'s' if len(self.found) > 1 else ''}"
        raise kind(
            f"the data of {self.ds} breaks its contract: {count}",
            found="\n    - ".join(["", *self.found]),
            hint=hint,
        )


def day_tables(spec: DatasetSpec) -> tuple[Table, ...]:
    """Events, users and Pins of a data set, then what else it declares."""
    return (spec.events_table(), spec.users_table(), spec.pins_table(), *spec.tables)


def conform(table: Table, data: pa.Table, spec: DatasetSpec, problems: Problems) -> pa.Table | None:
    """Rows in the declared types, columns in the declared order; None when a type is wrong.

    Integers may stand for strings (ids), wider numbers for narrower ones, lists of numbers for
    packed vectors. A timestamp must say its time zone, and a label must not be a float.
    """
    features = {f.name: f for f in spec.features}
    arrays: list[pa.ChunkedArray] = []
    for column in table.columns:
        if column.name not in data.column_names:
            problems.add(table.name, column.name, rule="the column", found="no such column")
            continue
        values = data[column.name]
        if not len(values):
            # An empty column has lost its type in what some programs write.
            arrays.append(pa.chunked_array([], arrow_type(column.dtype)))
            continue
        if column.dtype == "binary":
            values = _packed(values, features[column.name])
        if not _convertible(values.type, column.dtype):
            rule = f"type {column.dtype}"
            found = str(values.type)
            if column.dtype == "timestamp" and pa.types.is_timestamp(values.type):
                rule += " with a time zone"
                found += ", which says none: if these are UTC, write them as timestamp[us, tz=UTC]"
            problems.add(table.name, column.name, rule=rule, found=found)
            continue
        if not column.nullable and values.null_count:
            found = f"{values.null_count} nulls in {len(values)} rows"
            problems.add(table.name, column.name, rule="no nulls", found=found)
            continue
        if (typed := _cast(table, column, values, problems)) is not None:
            arrays.append(typed)
    if len(arrays) < len(table.columns):
        return None
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def check_tables(
    spec: DatasetSpec, tables: dict[str, pa.Table], problems: Problems, *, may_be_empty: bool
) -> None:
    """Check typed tables of a day, any of which may be absent, against the contract.

    Args:
        may_be_empty: a day without events is one; without any, users and Pins need no rows.
    """
    quiet = may_be_empty and "events" in tables and not tables["events"].num_rows
    for table in day_tables(spec):
        if table.name not in tables:
            continue
        if tables[table.name].num_rows == 0:
            if not quiet and table not in spec.tables:
                problems.add(table.name, rule="at least one row", found="an empty day")
            continue
        check_rows(spec, table, tables[table.name], problems)
        if table.name == "events":
            _check_day_of(table, filed_at(tables[table.name]), problems)
        elif table in spec.tables and "ts" in tables[table.name].column_names:
            _check_day_of(table, tables[table.name]["ts"], problems)
    if "events" in tables:
        for snapshot in (spec.users_table(), spec.pins_table()):
            if snapshot.name in tables:
                check_known(tables["events"], snapshot, tables[snapshot.name], problems)


def check_rows(spec: DatasetSpec, table: Table, data: pa.Table, problems: Problems) -> None:
    """Check what holds for the rows of a table whatever their day: keys, values, widths."""
    features = {f.name: f for f in spec.features}
    _check_key(table, data, problems)
    for column in table.columns:
        _check_column(table, column, features.get(column.name), data, problems)
    if table.name == "events":
        _check_late_labels(spec, data, problems)


def check_known(events: pa.Table, table: Table, snapshot: pa.Table, problems: Problems) -> None:
    """Check that a snapshot of users or Pins has a row for each of those in the impressions."""
    (key,), events = table.key, impressions(events)
    known = pc.is_in(events[key], snapshot[key].combine_chunks())
    unknown = pc.unique(events[key].filter(pc.invert(known)))
    rule = f"every {key.removesuffix('_id')} of the events in {table.name}"
    problems.add_rows("events", key, rule, unknown, events.num_rows)


def _check_key(table: Table, data: pa.Table, problems: Problems) -> None:
    for name in table.key:
        empty = data[name].filter(pc.equal(pc.utf8_length(data[name]), 0))
        problems.add_rows(table.name, name, "a key that is not empty", empty, data.num_rows)
    counts = data.group_by(list(table.key)).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts["count_all"], 1))
    problems.add_rows(table.name, table.key[0], "unique keys", doubled[table.key[0]], data.num_rows)


def _check_column(
    table: Table, column: Column, feature: Feature | None, data: pa.Table, problems: Problems
) -> None:
    values, rows = data[column.name], data.num_rows
    present = values.drop_null()
    note = (table.name, column.name)
    if column.values is not None:
        unknown = present.filter(pc.invert(pc.is_in(present, pa.array(column.values))))
        problems.add_rows(*note, f"one of {' '.join(column.values)}", pc.unique(unknown), rows)
    if pa.types.is_floating(values.type):
        odd = present.filter(pc.invert(pc.is_finite(present)))
        problems.add_rows(*note, "finite numbers", odd, rows)
    for bound, breaks, sign in (
        (column.minimum, pc.less, ">="),
        (column.maximum, pc.greater, "<="),
    ):
        if bound is not None:
            outside = present.filter(breaks(present, pa.scalar(bound).cast(present.type)))
            problems.add_rows(*note, f"values {sign} {bound:g}", outside, rows)
    if feature is not None and feature.dim:
        _check_vectors(table, feature, values, problems)
    if column.is_id or (feature is not None and feature.ids_of):
        problems.add_rows(*note, ID_RULE, odd_ids(values), rows)
    if feature is not None and feature.max_len:
        lengths = pc.list_value_length(values)
        long = lengths.filter(pc.greater(lengths, feature.max_len))
        problems.add_rows(*note, f"at most {feature.max_len} elements", long, rows)


def _check_vectors(
    table: Table, feature: Feature, values: pa.ChunkedArray, problems: Problems
) -> None:
    widths = pc.binary_length(values)
    wrong = widths.filter(pc.not_equal(widths, 4 * feature.dim))
    rule = f"{feature.dim} float32 ({4 * feature.dim} bytes)"
    problems.add_rows(table.name, feature.name, rule, wrong, len(values))
    if len(wrong):
        return
    finite = np.isfinite(unpack(values, feature.dim)).all(axis=1)
    broken = pa.array(np.flatnonzero(~finite))
    problems.add_rows(table.name, feature.name, "finite vectors (rows)", broken, len(values))


def _check_late_labels(spec: DatasetSpec, events: pa.Table, problems: Problems) -> None:
    """Check what late labels say of themselves: whose they are, when they came, a yes."""
    late, rows = is_late(events), events.num_rows
    half = events["event_id"].filter(pc.xor(late, pc.is_valid(events["impression_id"])))
    rule = "arrived_at and impression_id together, or neither"
    problems.add_rows("events", "arrived_at", rule, half, rows)
    labels = events.filter(late)
    shown, arrived = (pc.cast(labels[c], pa.int64()).to_numpy() for c in ("ts", "arrived_at"))
    same_day = shown // _DAY_US >= arrived // _DAY_US
    odd = same_day | (arrived - shown > spec.attribution_days * _DAY_US)
    rule = f"a later day than that of ts, and at most {spec.attribution_days} days after it"
    problems.add_rows(
        "events", "arrived_at", rule, labels["arrived_at"].filter(pa.array(odd)), rows
    )
    says_yes = [pc.fill_null(pc.equal(labels[x], 1), False) for x in spec.counted[1:]]
    idle = labels["event_id"].filter(pc.invert(functools.reduce(pc.or_, says_yes)))
    problems.add_rows("events", "impression_id", "a late row with a label that is 1", idle, rows)


def _check_day_of(table: Table, filed: pa.ChunkedArray, problems: Problems) -> None:
    """Check that the times under which rows are filed are of the day."""
    start = _midnight(problems.ds)
    low, high = pa.scalar(start, filed.type), pa.scalar(start + dt.timedelta(days=1), filed.type)
    bad = filed.filter(pc.or_(pc.less(filed, low), pc.greater_equal(filed, high)))
    problems.add_rows(table.name, "ts", "a time within the day (UTC)", bad, len(filed))


def _cast(
    table: Table, column: Column, values: pa.ChunkedArray, problems: Problems
) -> pa.ChunkedArray | None:
    target = arrow_type(column.dtype)
    # Whole numbers must not lose value; precision of floats and of times beyond a microsecond may.
    exact = pa.types.is_integer(target)
    options = pc.CastOptions(target, allow_time_truncate=True)
    if not (exact or pa.types.is_timestamp(target)):
        options = pc.CastOptions.unsafe(target)
    try:
        typed = pc.cast(values, options=options)
    except pa.ArrowInvalid as error:
        problems.add(table.name, column.name, rule=f"type {column.dtype}", found=str(error))
        return None
    if pa.types.is_timestamp(target):
        present = typed.drop_null()
        outside = pc.or_(pc.less(present, _FIRST), pc.greater_equal(present, _END))
        far = present.filter(outside)
        problems.add_rows(table.name, column.name, _YEARS, far, len(typed))
        if len(far):
            return None
    if column.dtype.startswith("list<"):
        nulls = pc.list_flatten(typed).null_count
        if nulls:
            problems.add(table.name, column.name, rule="no null elements", found=f"{nulls} nulls")
            return None
    return typed


def _convertible(found: pa.DataType, dtype: str) -> bool:
    is_ = pa.types
    if is_.is_dictionary(found):
        found = found.value_type
    if dtype == "string":
        return bool(is_.is_string(found) or is_.is_large_string(found) or is_.is_integer(found))
    if dtype.startswith("int"):
        return bool(is_.is_integer(found) or is_.is_boolean(found))
    if dtype.startswith("float"):
        return bool(is_.is_floating(found) or is_.is_integer(found))
    if dtype == "timestamp":
        return bool(is_.is_timestamp(found) and found.tz is not None)
    if dtype == "binary":
        return bool(is_.is_binary(found) or is_.is_large_binary(found))
    if dtype.startswith("list<"):
        return _is_list(found) and _convertible(found.value_type, dtype[5:-1])
    return bool(found == arrow_type(dtype))


def _is_list(found: pa.DataType) -> bool:
    is_ = pa.types
    return bool(is_.is_list(found) or is_.is_large_list(found) or is_.is_fixed_size_list(found))


def _packed(values: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray:
    """Lists of numbers as packed float32 vectors; anything else, and ragged lists, as they are."""
    if not _is_list(values.type) or not pa.types.is_floating(values.type.value_type):
        return values
    lengths = pc.list_value_length(values)
    if values.null_count or not pc.all(pc.equal(lengths, feature.dim)).as_py():
        return values
    flat = pc.list_flatten(values.combine_chunks()).to_numpy(zero_copy_only=False).astype("<f4")
    width = 4 * feature.dim
    fixed = pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(flat)])
    return pa.chunked_array([fixed.cast(pa.binary())])


def _midnight(ds: str) -> dt.datetime:
    return dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)


def _shown(value: pa.Scalar) -> str:
    if pa.types.is_timestamp(value.type):
        if not _FIRST.value <= value.value < _END.value:
            return f"one of about the year {1970 + value.value // _YEAR_US}"
        return str(value)
    text = repr(value.as_py())
    more = f"... ({len(text)} characters)" if len(text) > _SHOWN else ""
    return text[:_SHOWN] + more
