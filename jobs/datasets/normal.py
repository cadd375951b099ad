"""What a normal day looks like: volume, label rates and freshness, as numbers with bounds."""

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.bounds import Check
from feature_store.contracts.datasets import DatasetSpec
from feature_store.embeddings.noise import SIGMAS, mean_error
from feature_store.lake.filing import filed_at, impressions, is_late

# Of so many rows at least one should carry a label; on a smaller day it may apply to none.
_LABELLED_ROWS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Positives of a label per impression that it applies to.

    Attributes:
        rows, largest: rows of all users, and of the user who has most.
        squares: sum over users of the squared distance of their positives from the expected ones.
    """

    share: float
    rows: int
    largest: int
    squares: float

    def error(self, bound: float) -> float:
        """Standard error of the share, if it were as it is allowed to be.

        The rows of one user are alike, so users are what varies; no less than rows on their own
        would, and one user more is assumed.
        """
        spread = bound * (1.0 - bound)
        squares = max(self.squares, self.rows * spread)
        return mean_error(self.rows, squares, half_range=self.largest * math.sqrt(spread))


def normal_day(spec: DatasetSpec, events: pa.Table, ds: str) -> Iterator[Check]:
    """The numbers of a day with events, and the bounds that a data set declares for them.

    The bounds of a rate lie as much further apart as chance can do.
    """
    rows, (fewest, most) = events.num_rows, spec.daily_rows
    yield Check(number="daily_rows", found=rows, bound=fewest)
    yield Check(number="daily_rows", found=rows, bound=most, least=False)
    for label, bounds in spec.label_rates.items():
        rate = rate_of(events, label)
        for bound, least in zip(bounds, (True, False), strict=True):
            found = math.nan if rows >= _LABELLED_ROWS else None
            chance = SIGMAS * rate.error(bound) * (-1 if least else 1) if rate else 0.0
            yield Check(
                number=f"rate_{label}",
                found=rate.share if rate else found,
                bound=bound + chance,
                least=least,
            )
    end = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC) + dt.timedelta(days=1)
    # Labels go on arriving when impressions have stopped coming in: they do not make a day fresh.
    shown = impressions(events)
    newest = pc.max(shown["ts"] if len(shown) else filed_at(events)).as_py()
    hours = (end - newest).total_seconds() / 3600
    yield Check(number="freshness_hours", found=hours, bound=spec.freshness_hours, least=False)


def rate_of(events: pa.Table, label: str) -> Rate | None:
    """Positives of a label, late ones included, per impression that it applies to; None of none."""
    shown = pc.and_(pc.invert(is_late(events)), pc.is_valid(events[label]))
    counted = pa.table(
        {
            "user": events["user_id"],
            "rows": pc.cast(shown, pa.int64()),
            "positives": pc.cast(pc.fill_null(events[label], 0), pa.int64()),
        }
    )
    users = counted.group_by("user").aggregate([("rows", "sum"), ("positives", "sum")])
    rows, positives = (
        users[f"{name}_sum"].to_numpy().astype(np.float64) for name in ("rows", "positives")
    )
    if not (total := int(rows.sum())):
        return None
    share = float(positives.sum()) / total
    return Rate(
        share=share,
        rows=total,
        largest=int(rows.max()),
        squares=float(((positives - share * rows) ** 2).sum()),
    )
