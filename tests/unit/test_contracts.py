"""Declarations: days, errors, tables and data sets, and what they refuse."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.contracts import errors
from feature_store.contracts.base import ENTITIES, check_day, days_between, shift_day
from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import (
    Column,
    Table,
    daily_table,
    pool_table,
    raw_table,
    runs_table,
)
from tests.pipelines import DECLARED, UPSTREAMS

_DAYS = st.dates().map(lambda d: d.isoformat())


@pytest.mark.parametrize(
    "ds", ["", "2025-3-1", "20250301", "2025-02-29", "2025-13-01", "2025-03-01T00", "2025-03-01\n"]
)
def test_what_is_no_day_is_refused(ds: str) -> None:
    with pytest.raises(ValueError, match=r"day|date|month"):
        check_day(ds)


@given(ds=_DAYS)
def test_a_day_is_itself(ds: str) -> None:
    assert check_day(ds) == ds


@given(
    ds=st.dates(min_value=dt.date(1000, 1, 1)).map(lambda d: d.isoformat()),
    days=st.integers(0, 400),
)
def test_shifting_back_and_forth(ds: str, days: int) -> None:
    earlier = shift_day(ds, -days)
    assert shift_day(earlier, days) == ds
    between = days_between(earlier, ds)
    assert len(between) == days + 1
    assert (between[0], between[-1]) == (earlier, ds)
    assert list(between) == sorted(set(between))


def test_leap_days_and_empty_ranges() -> None:
    assert shift_day("2024-02-28", 1) == "2024-02-29"
    assert shift_day("2025-02-28", 1) == "2025-03-01"
    assert days_between("2025-03-02", "2025-03-01") == ()


def test_an_error_says_what_where_expected_found_and_the_next_step() -> None:
    error = errors.ContractViolation(
        "events break their contract", where="events 2025-03-01", expected="no nulls",
        found="3 nulls", hint="repair the source",
    )  # fmt: skip
    assert str(error).splitlines() == [
        "events break their contract",
        "  where:    events 2025-03-01",
        "  expected: no nulls",
        "  found:    3 nulls",
        "  hint:     repair the source",
    ]
    assert set(json.loads(json.dumps(vars(error)))) == {
        "what", "where", "expected", "found", "hint",
    }  # fmt: skip


def test_what_is_not_known_is_not_said() -> None:
    assert str(errors.DermError("it broke")) == "it broke"
    assert str(errors.DermError("it broke", found="x")) == "it broke\n  found:    x"


@pytest.mark.parametrize(
    ("error", "code"),
    [("InputError", 2), ("ContractViolation", 2), ("MissingInput", 2), ("ManifestCorrupt", 2),
     ("GuardFailed", 3), ("SpaceMismatch", 3), ("CommitConflict", 1), ("StoreError", 1)],
)  # fmt: skip
def test_exit_codes_are_a_contract(error: str, code: int) -> None:
    assert getattr(errors, error)("x").exit_code == code


def test_declarations_are_frozen_closed_and_strict() -> None:
    artifact = Artifact(name="release", ds="2025-03-01", digest="d")
    with pytest.raises(ValidationError):
        artifact.rows = 1
    with pytest.raises(ValidationError):
        Artifact(name="release", ds="2025-03-01", digest="d", rows="1")
    with pytest.raises(ValidationError):
        Artifact(name="release", ds="2025-03-01", digest="d", colour="red")
    with pytest.raises(ValidationError):
        Artifact(name="release", ds="yesterday", digest="d")


def _column(name: str) -> Column:
    return Column(name=name, dtype="string", meaning="x")


@pytest.mark.parametrize(
    ("columns", "key", "reason"),
    [
        (("a", "a"), ("a",), "duplicate"),
        (("a",), ("b",), "not declared"),
        (("a", "ds"), ("a",), "partition"),
        (("a", "bucket"), ("a",), "partition"),
    ],
)
def test_inconsistent_tables_are_refused(
    columns: tuple[str, ...], key: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        Table(name="t", grain="g", key=key, columns=tuple(map(_column, columns)))


def _fields(table: Table) -> dict[str, dict]:
    return {f["name"]: f for f in json.loads(table.delta_schema_json())["fields"]}


def test_delta_schema_ends_with_the_partition_columns() -> None:
    assert list(_fields(pool_table("ctr", "user")))[-2:] == ["ds", "bucket"]
    assert list(_fields(runs_table()))[-1] == "ds"
    assert _fields(pool_table("ctr", "user"))["previous_daily"]["nullable"]
    assert not _fields(pool_table("ctr", "user"))["embedding"]["nullable"]


def test_delta_schema_of_lists() -> None:
    table = Table(
        name="t",
        grain="g",
        key=("a",),
        columns=(_column("a"), Column(name="b", dtype="list<int64>", meaning="x")),
    )
    assert _fields(table)["b"]["type"] == {
        "type": "array", "elementType": "long", "containsNull": False,
    }  # fmt: skip


def test_embedding_tables_are_one_per_upstream_and_entity() -> None:
    made = [f(u, e) for f in (raw_table, daily_table, pool_table) for u in UPSTREAMS
            for e in ENTITIES]  # fmt: skip
    assert len({t.name for t in made}) == 12
    assert all(t.bucketed for t in made)
    assert not runs_table().bucketed


def test_unknown_columns() -> None:
    assert runs_table().column("step").dtype == "string"
    with pytest.raises(KeyError, match="runs has no column 'x'"):
        runs_table().column("x")


def _spec(**changes: object) -> DatasetSpec:
    fields = {
        "name": "d",
        "description": "x",
        "surfaces": ("home",),
        "actions": ("click", "none"),
        "labels": (
            Label(name="save", upstream="ctr", role="auxiliary", meaning="x"),
            Label(name="click", upstream="ctr", role="primary", meaning="x"),
            Label(name="buy", upstream="cvr", role="primary", meaning="x"),
        ),
        "features": (
            Feature(name="age", scope="user", kind="numeric", meaning="x"),
            Feature(name="topic", scope="pin", kind="categorical", meaning="x"),
            Feature(name="hour", scope="context", kind="numeric", meaning="x"),
        ),
    }
    return DatasetSpec(**{**fields, **changes})


def test_a_data_set_declares_its_three_tables() -> None:
    spec = _spec()
    events = spec.events_table()
    assert {"event_id", "ts", "user_id", "pin_id", "click", "buy", "save", "hour"} <= {
        c.name for c in events.columns
    }
    assert "age" not in {c.name for c in events.columns}
    assert events.column("click").nullable
    assert (events.column("click").minimum, events.column("click").maximum) == (0, 1)
    assert events.column("surface").values == ("home",)
    assert [c.name for c in spec.users_table().columns] == ["user_id", "age"]
    assert [c.name for c in spec.pins_table().columns] == ["pin_id", "topic"]


def test_the_primary_label_comes_first() -> None:
    assert [x.name for x in _spec().labels_of("ctr")] == ["click", "save"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": _spec().labels[:1]}, "upstream ctr needs one primary label"),
        ({"upstreams": DECLARED[:1]}, "label .* is of upstream cvr, declared are ctr"),
        ({"upstreams": (*DECLARED, DECLARED[0])}, "upstreams are declared twice: ctr"),
        ({"labels": (*_spec().labels, _spec().labels[1])}, "upstream ctr needs one primary"),
        ({"features": _spec().features[1:]}, "no user feature"),
        ({"features": (*_spec().features, _spec().features[0])}, "declared twice"),
        ({"label_rates": {"nothing": (0.0, 1.0)}}, "unknown labels"),
    ],
)
def test_incomplete_data_sets_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        _spec(**changes)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("embedding", {}),
        ("numeric", {"dim": 4}),
        ("list", {}),
        ("categorical", {"max_len": 3}),
        ("numeric", {"ids_of": "pin"}),
    ],
)
def test_feature_sizes_fit_their_kind(kind: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="feature f"):
        Feature(name="f", scope="user", kind=kind, meaning="x", **sizes)
