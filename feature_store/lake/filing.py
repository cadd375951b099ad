"""Under which day a row of events is filed, and which rows are impressions.

A row tells of an impression, at `ts`. It is filed under the day it belongs to: an impression under
the day of `ts`; a late label, which repeats an impression of an earlier day because its label was
not known then, under the day of `arrived_at`.
"""

import datetime as dt
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.lake.staging import sort_rows

R = TypeVar("R", pa.Table, pa.RecordBatch)

_DAY_US = 86_400_000_000


def is_late(rows: pa.Table | pa.RecordBatch) -> pa.Array | pa.ChunkedArray:
    """Whether each row is a late label; the others are impressions."""
    return pc.is_valid(rows.column("arrived_at"))


def filed_at(rows: pa.Table | pa.RecordBatch) -> pa.Array | pa.ChunkedArray:
    """The time whose day each row is filed under."""
    return pc.coalesce(rows.column("arrived_at"), rows.column("ts"))


def never_late(rows: pa.Table) -> pa.Table:
    """Rows of a source that knows every label on the day of its impression."""
    nothing = {"arrived_at": pa.timestamp("us", tz="UTC"), "impression_id": pa.string()}
    for name, kind in nothing.items():
        rows = rows.append_column(name, pa.nulls(len(rows), kind))
    return rows


def impressions(rows: R) -> R:
    """The rows that are impressions."""
    return rows.filter(pc.invert(is_late(rows)))


def in_filing_order(rows: pa.Table) -> pa.Table:
    """Rows of events in the order in which they became known; ties by id."""
    filed = rows.append_column("filed_at", filed_at(rows))
    return sort_rows(filed, ("filed_at", "event_id")).drop_columns("filed_at")


def day_numbers(times: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Days since 1970-01-01 of UTC times [n]."""
    days: npt.NDArray[np.int64] = times.cast(pa.int64()).to_numpy() // _DAY_US
    return days


def iso_day(number: int) -> str:
    """The ISO date of a day since 1970-01-01."""
    return (dt.date(1970, 1, 1) + dt.timedelta(days=int(number))).isoformat()
