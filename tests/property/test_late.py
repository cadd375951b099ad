"""Rows that arrive after their day: sorted out, kept once, and put where they belong."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.base import shift_day
from feature_store.lake.lake import Lake
from feature_store.lake.late import (
    LATE,
    QUARANTINE,
    Delivery,
    accepted_before,
    of_day,
    put_late,
    split_late,
    with_late,
)
from tests.aggregation_fixtures import FIRST, SPEC, event_rows, random_day

EVENTS = SPEC.events_table()
TODAY = shift_day(FIRST, 2)
YESTERDAY = shift_day(FIRST, 1)
NONE = pa.array([], pa.string())


def events(*days: str) -> pa.Table:
    return pa.concat_tables(
        [event_rows(random_day(0, ds, "user"), random_day(0, ds, "pin")) for ds in days]
    )


def split(rows: pa.Table, *open_days: str, accepted: pa.Array = NONE) -> Delivery:
    return split_late(rows, TODAY, lambda ds: ds in open_days, accepted)


def test_rows_go_to_their_own_day_while_it_is_open() -> None:
    delivery = split(events(TODAY, YESTERDAY, FIRST), YESTERDAY)
    assert delivery.on_time.equals(events(TODAY))
    assert delivery.late.equals(events(YESTERDAY))
    assert delivery.reopened == (YESTERDAY,)
    assert delivery.refused.drop_columns("reason").equals(events(FIRST))
    assert set(delivery.refused["reason"].to_pylist()) == {
        f"{FIRST} was validated before this row came"
    }


def test_a_row_of_tomorrow_is_left_to_the_contract() -> None:
    tomorrow = events(shift_day(TODAY, 1))
    delivery = split(tomorrow)
    assert delivery.on_time.equals(tomorrow)
    assert (len(delivery.late), len(delivery.refused)) == (0, 0)


def test_a_row_that_reached_its_day_stays_there_when_the_delivery_is_read_again(
    tmp_path: Path,
) -> None:
    lake, rows = Lake(tmp_path), events(TODAY, YESTERDAY)
    assert len(accepted_before(lake, EVENTS, TODAY)) == 0
    put_late(lake, EVENTS, TODAY, split(rows, YESTERDAY))
    accepted = accepted_before(lake, EVENTS, TODAY)
    again = split(rows, accepted=accepted)
    assert again.late.equals(events(YESTERDAY))
    assert len(again.refused) == 0


def test_a_second_delivery_replaces_the_first(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    put_late(lake, EVENTS, TODAY, split(events(TODAY)))
    assert not lake.exists(QUARANTINE)
    assert not lake.exists(LATE)
    put_late(lake, EVENTS, TODAY, split(events(FIRST, YESTERDAY), YESTERDAY))
    assert lake.open(QUARANTINE).count() == len(events(FIRST))
    assert lake.open(LATE).count() == len(events(YESTERDAY))
    put_late(lake, EVENTS, TODAY, split(events(TODAY)))
    assert lake.open(QUARANTINE).count() == lake.open(LATE).count() == 0


_ROWS = st.lists(
    # Day it happened on, days until it arrived, days until it arrives again (0: it does not).
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(rows=_ROWS, closes_after=st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_any_arrivals_leave_each_event_once_where_a_row_at_a_time_would(
    rows: list[tuple[int, int, int]], closes_after: list[int]
) -> None:
    """Days are ingested in order; day d is validated `closes_after[d]` days later, or at once."""
    template = events(FIRST).slice(0, 1)
    arrivals = sorted(
        (happened + late + extra, happened, number)
        for number, (happened, late, again) in enumerate(rows)
        for extra in {0, again}
    )
    placed: dict[int, int] = {}
    refused: set[tuple[int, int]] = set()
    for arrival, happened, number in arrivals:
        if arrival == happened or arrival <= happened + closes_after[happened]:
            placed.setdefault(number, happened)
        else:
            refused.add((arrival, number))
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        found, on_time = {}, {}
        for arrival in range(9):
            ds = shift_day(FIRST, arrival)
            batch = [(h, n) for a, h, n in arrivals if a == arrival]
            delivered = pa.concat_tables(
                [template.slice(0, 0), *(_event(template, h, n) for h, n in batch)]
            )

            def is_open(day: str, today: str = ds) -> bool:
                return any(
                    day == shift_day(FIRST, d) and today <= shift_day(day, closes_after[d])
                    for d in range(4)
                )

            delivery = split_late(delivered, ds, is_open, accepted_before(lake, EVENTS, ds))
            put_late(lake, EVENTS, ds, delivery)
            on_time[ds] = delivery.on_time
        for day in range(4):
            ds = shift_day(FIRST, day)
            whole = with_late(lake, EVENTS, ds, on_time[ds])
            assert len(of_day(whole, ds)) == len(whole)
            found |= {int(i): day for i in whole["event_id"].to_pylist()}
            assert len(set(whole["event_id"].to_pylist())) == len(whole)
        assert found == placed
        kept = lake.open(QUARANTINE).count() if lake.exists(QUARANTINE) else 0
        assert kept == len(refused)


def _event(template: pa.Table, day: int, number: int) -> pa.Table:
    ts = pa.scalar(template["ts"][0].as_py().replace(day=day + 1), template["ts"].type)
    columns = {"event_id": pa.scalar(str(number)), "ts": ts}
    for name, value in columns.items():
        place = template.schema.get_field_index(name)
        template = template.set_column(place, template.schema.field(name), pa.array([value]))
    return template
