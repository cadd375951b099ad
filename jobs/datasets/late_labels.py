"""Late labels beside their impressions: they repeat them, and bring the label."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.filing import day_numbers, is_late, iso_day
from feature_store.lake.lake import Lake
from jobs.datasets.checks import Problems


def has_impression(
    lake: Lake, spec: DatasetSpec, rows: pa.Table, problems: Problems
) -> npt.NDArray[np.bool_]:
    """Whether each row [n] is an impression, or a late label of one that is in the lake.

    A late label that does not repeat its impression in all that a model reads is noted.
    """
    late: npt.NDArray[np.bool_] = is_late(rows).to_numpy()
    known, days = ~late, day_numbers(rows["ts"])
    there = set(lake.days("events")) if late.any() else set()
    for day in np.unique(days[late]).tolist():
        if (ds := iso_day(day)) in there:
            mine = np.flatnonzero(late & (days == day))
            known[mine] = _repeated(lake, spec, ds, rows.take(pa.array(mine)), problems)
    return known


def _repeated(
    lake: Lake, spec: DatasetSpec, ds: str, labels: pa.Table, problems: Problems
) -> npt.NDArray[np.bool_]:
    """Whether the impression of each late label is there; what differs from it is noted."""
    carried = ("ts", "user_id", "pin_id", "surface", *(f.name for f in spec.features_of("context")))
    ids = labels["impression_id"].combine_chunks()
    wanted = pc.field("event_id").isin(ids) & pc.field("arrived_at").is_null()
    dataset = lake.dataset(spec.events_table(), [ds])
    shown = dataset.to_table(columns=["event_id", *carried], filter=wanted)
    at = pc.index_in(ids, value_set=shown["event_id"].combine_chunks())
    known = at.is_valid()
    told, origin = labels.filter(known), shown.take(at.drop_null())
    for name in carried:
        differs = pc.invert(_same(told[name], origin[name]))
        rule = f"what its impression of {ds} carries"
        problems.add_rows("events", name, rule, told["event_id"].filter(differs), len(labels))
    found: npt.NDArray[np.bool_] = known.to_numpy(zero_copy_only=False)
    return found


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether values are equal; nulls are equal to each other."""
    if pa.types.is_list(left.type):
        left, right = (pc.binary_join(x.combine_chunks(), "\0") for x in (left, right))
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(both_null, pc.fill_null(pc.equal(left, right), False))
