"""Rows that arrive after their day: to their own day while it is open, else to quarantine."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Column, Table
from feature_store.lake import Lake
from feature_store.schemas import arrow_schema

QUARANTINE = "quarantine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One delivery of events, sorted out by the day that each row belongs to.

    Attributes:
        on_time: rows of the delivery's day, and of days after it, which the contract refuses.
        reopened: earlier days that are still open, and their rows.
        late: rows of earlier days that are closed, with the column `reason`.
    """

    on_time: pa.Table
    reopened: dict[str, pa.Table]
    late: pa.Table


def split_late(events: pa.Table, ds: str, is_open: Callable[[str], bool]) -> Delivery:
    """Sort the rows of a delivery by the day of their timestamp.

    Args:
        events: rows with a timestamp column `ts`; a null timestamp counts as on time, and is the
            contract's to refuse.
        ds: the day of the delivery.
        is_open: whether an earlier day has not been validated yet.
    """
    days = pc.strftime(events["ts"], "%Y-%m-%d")
    early = pc.fill_null(pc.less(days, ds), False)
    before = sorted(pc.unique(days.filter(early)).to_pylist())
    by_day = {day: events.filter(pc.equal(days, day)) for day in before}
    closed = [day for day in before if not is_open(day)]
    late = [
        _with_reason(by_day[day], f"{day} was validated before the row arrived") for day in closed
    ]
    return Delivery(
        on_time=events.filter(pc.invert(early)),
        reopened={day: rows for day, rows in by_day.items() if day not in closed},
        late=pa.concat_tables([_with_reason(events.slice(0, 0), ""), *late]),
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


def put_quarantine(lake: Lake, events: Table, ds: str, late: pa.Table) -> Artifact | None:
    """Replace the quarantine of a delivery; None when there is and was nothing to keep."""
    table = quarantine_table(events)
    if len(late) == 0 and ds not in lake.days(table.name):
        return None
    return lake.overwrite(table, ds, late.cast(arrow_schema(table)))


def _with_reason(rows: pa.Table, reason: str) -> pa.Table:
    return rows.append_column("reason", pa.repeat(pa.scalar(reason, pa.string()), len(rows)))
