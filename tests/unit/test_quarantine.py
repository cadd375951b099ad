"""Rows that arrive after their day."""

from pathlib import Path

import pyarrow as pa

from feature_store.contracts.base import shift_day
from feature_store.lake import Lake
from feature_store.quarantine import QUARANTINE, put_quarantine, split_late
from tests.aggregation_fixtures import FIRST, SPEC, event_rows, random_day

TODAY = shift_day(FIRST, 2)


def events(*days: str) -> pa.Table:
    return pa.concat_tables([random_day(1, ds, "user", events=5) for ds in days])


def test_rows_go_to_their_own_day_while_it_is_open() -> None:
    yesterday = shift_day(TODAY, -1)
    delivery = split_late(events(TODAY, yesterday, FIRST), TODAY, lambda ds: ds == yesterday)
    assert delivery.on_time.equals(events(TODAY))
    assert list(delivery.reopened) == [yesterday]
    assert delivery.reopened[yesterday].equals(events(yesterday))
    assert delivery.late.drop_columns("reason").equals(events(FIRST))
    assert set(delivery.late["reason"].to_pylist()) == {
        f"{FIRST} was validated before the row arrived"
    }


def test_a_row_without_a_time_and_one_of_tomorrow_are_left_to_the_contract() -> None:
    tomorrow = events(shift_day(TODAY, 1))
    timeless = tomorrow.set_column(2, "ts", pa.nulls(5, tomorrow["ts"].type))
    for rows in (tomorrow, timeless):
        delivery = split_late(rows, TODAY, lambda _: False)
        assert delivery.on_time.equals(rows)
        assert (delivery.reopened, len(delivery.late)) == ({}, 0)


def test_a_second_delivery_replaces_the_first(tmp_path: Path) -> None:
    lake, table = Lake(tmp_path), SPEC.events_table()
    rows = event_rows(random_day(0, FIRST, "user"), random_day(0, FIRST, "pin"))
    late = split_late(rows, TODAY, lambda _: False).late
    assert put_quarantine(lake, table, TODAY, late.slice(0, 0)) is None
    put_quarantine(lake, table, TODAY, late)
    assert lake.open(QUARANTINE).count() == len(rows)
    put_quarantine(lake, table, TODAY, late.slice(0, 0))
    assert lake.open(QUARANTINE).count() == 0
