"""What a normal day looks like: volume, label rates and freshness, as numbers with bounds."""

import datetime as dt
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.datasets import DatasetSpec
from feature_store.embeddings.noise import SIGMAS, mean_error
from jobs.engine.guards import Check

# Of so many rows at least one should carry a label; on a smaller day it may apply to none.
_LABELLED_ROWS = 100


def normal_day(spec: DatasetSpec, events: pa.Table, ds: str) -> Iterator[Check]:
    """The numbers of a day with events, and the bounds that a data set declares for them.

    The bounds of a rate lie as much further apart as chance can do: the rows of one user are alike,
    so users are what varies.
    """
    rows, (fewest, most) = events.num_rows, spec.daily_rows
    yield Check(number="daily_rows", found=rows, bound=fewest)
    yield Check(number="daily_rows", found=rows, bound=most, least=False)
    for label, (lowest, highest) in spec.label_rates.items():
        rate, error = rate_of(events, label)
        known = rate is not None and error is not None
        if not known and rows >= _LABELLED_ROWS:
            rate, error = math.nan, 0.0
        chance = SIGMAS * (error or 0.0)
        yield Check(number=f"rate_{label}", found=rate, bound=lowest - chance)
        yield Check(number=f"rate_{label}", found=rate, bound=highest + chance, least=False)
    end = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC) + dt.timedelta(days=1)
    hours = (end - pc.max(events["ts"]).as_py()).total_seconds() / 3600
    yield Check(number="freshness_hours", found=hours, bound=spec.freshness_hours, least=False)


def rate_of(events: pa.Table, label: str) -> tuple[float | None, float | None]:
    """The share of positives of a label and its standard error; None where no row has it."""
    known = events.select(["user_id", label]).filter(pc.is_valid(events[label]))
    if not known.num_rows:
        return None, None
    users = known.group_by("user_id").aggregate([(label, "sum"), (label, "count")])
    positives, rows = (
        users[f"{label}_{name}"].to_numpy().astype(np.float64) for name in ("sum", "count")
    )
    rate = float(positives.sum() / rows.sum())
    squares = float(((positives - rate * rows) ** 2).sum())
    return rate, mean_error(float(rows.sum()), squares, half_range=0.5 * float(rows.max()))
