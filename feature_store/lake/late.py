"""Rows that are delivered after their day: to that day while it is open, else to quarantine.

The day of a row is the one it is filed under (`feature_store/lake/filing.py`): a late label that is
delivered on the day it arrived on came in time.

`late` holds the rows that still reached their day, `quarantine` those that came after it was
validated. In both, `ds` is the day a row arrived on: a delivery that is read again replaces what
it brought before, and nothing twice.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.tables import Column, Table
from feature_store.lake.filing import filed_at
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import arrow_schema

LATE, QUARANTINE = "late", "quarantine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One delivery of events, sorted out by the day that each row belongs to.

    Attributes:
        on_time: rows of the delivery's day, and of days after it, which the contract refuses.
        late: rows of earlier days that are open.
        refused: rows of earlier days that are closed, and late labels of impressions that nobody
            knows; with the column `reason`.
    """

    on_time: pa.Table
    late: pa.Table
    refused: pa.Table

    @property
    def reopened(self) -> tuple[str, ...]:
        """The earlier days that rows were added to, oldest first."""
        return tuple(sorted(pc.unique(_days(self.late)).to_pylist()))

    def without_unknown(self, known: Callable[[pa.Table], npt.NDArray[np.bool_]]) -> Self:
        """Refuse the late labels whose impression is not known.

        Args:
            known: whether each row is an impression, or a late label of one that is known.
        """
        kept, refused = [], [self.refused]
        for rows in (self.on_time, self.late):
            is_known = pa.array(known(rows))
            kept.append(rows.filter(is_known))
            unknown = rows.filter(pc.invert(is_known))
            shown_on = pc.strftime(unknown["ts"], "%Y-%m-%d")
            reasons = pc.binary_join_element_wise(
                "its impression of", shown_on, "is not in events", " "
            )
            refused.append(unknown.append_column("reason", reasons))
        on_time, late = kept
        return dataclasses.replace(
            self, on_time=on_time, late=late, refused=pa.concat_tables(refused)
        )


def split_late(
    events: pa.Table, ds: str, is_open: Callable[[str], bool], accepted: pa.Array
) -> Delivery:
    """Sort the rows of a delivery by the day they are filed under.

    Args:
        events: rows with the columns `event_id`, `ts` and `arrived_at`.
        ds: the day of the delivery.
        is_open: whether an earlier day has not been validated yet.
        accepted: ids of events that an earlier reading of this delivery added to their day: they
            stay there, although it is closed by now.
    """
    days = _days(events)
    early = pc.less(days, ds)
    before = pc.unique(days.filter(early)).to_pylist()
    still_open = pa.array([day for day in before if is_open(day)], pa.string())
    welcome = pc.or_(pc.is_in(days, still_open), pc.is_in(events["event_id"], accepted))
    refused = events.filter(pc.and_(early, pc.invert(welcome)))
    reasons = pc.binary_join_element_wise(_days(refused), "was validated before this row came", " ")
    return Delivery(
        on_time=events.filter(pc.invert(early)),
        late=events.filter(pc.and_(early, welcome)),
        refused=refused.append_column("reason", reasons),
    )


def late_table(events: Table) -> Table:
    """The declaration of `late`: the columns of events."""
    return Table(
        name=LATE,
        grain="one event that arrived after its day, which was open; ds is the day it arrived on",
        key=events.key,
        columns=events.columns,
    )


def quarantine_table(events: Table) -> Table:
    """The declaration of `quarantine`: the columns of events, and why a row is here."""
    return Table(
        name=QUARANTINE,
        grain="one event that arrived after its day was closed; ds is the day it arrived on",
        key=events.key,
        columns=(
            *events.columns,
            Column(name="reason", dtype="string", meaning="why it is not in events"),
        ),
    )


def put_late(lake: Lake, events: Table, ds: str, delivery: Delivery) -> None:
    """Keep the rows of a delivery that belong to other days, instead of what it brought before."""
    for table, rows in (
        (late_table(events), delivery.late),
        (quarantine_table(events), delivery.refused),
    ):
        if len(rows) or ds in lake.days(table.name):
            lake.overwrite(table, ds, rows.cast(arrow_schema(table)))


def accepted_before(lake: Lake, events: Table, ds: str) -> pa.Array:
    """Ids of the events of a delivery that were added to their own day."""
    if ds not in lake.days(LATE):
        return pa.array([], pa.string())
    rows = lake.read(late_table(events), ds, columns=["event_id"])
    return rows["event_id"].combine_chunks()


def with_late(lake: Lake, events: Table, ds: str, on_time: pa.Table) -> pa.Table:
    """A day's events, and those of later deliveries that were added to it: each event once."""
    arrivals = lake.days(LATE)
    if not arrivals:
        return on_time
    known = on_time["event_id"].combine_chunks()
    parts = [on_time]
    for day in (d for d in arrivals if d > ds):
        rows = of_day(lake.read(late_table(events), day), ds)
        parts.append(rows.filter(pc.invert(pc.is_in(rows["event_id"], value_set=known))))
        known = pa.concat_arrays([known, *parts[-1]["event_id"].chunks])
    return pa.concat_tables(parts)


def of_day(events: pa.Table, ds: str) -> pa.Table:
    """The rows that are filed under a day."""
    return events.filter(pc.equal(_days(events), ds))


def _days(events: pa.Table) -> pa.ChunkedArray:
    return pc.strftime(filed_at(events), "%Y-%m-%d")
