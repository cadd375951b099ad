"""What the numeric features and the labels of some days look like, gathered in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.lake import Lake
from feature_store.reading.encoding import floats

_CHUNK_ROWS = 65_536


@dataclass(kw_only=True, slots=True)
class NumericSummary:
    """Minimum, maximum and spread of a numeric feature, gathered in one pass.

    Attributes:
        total, squares: sums of the values seen and of their squares.
    """

    count: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in values; NaN is left out."""
        known = values[~np.isnan(values)].astype(np.float64)
        if len(known):
            self.count += len(known)
            self.minimum = min(self.minimum, float(known.min()))
            self.maximum = max(self.maximum, float(known.max()))
            self.total += float(known.sum())
            self.squares += float((known**2).sum())

    @property
    def mean(self) -> float:
        """The mean of the values seen; 0 for none."""
        return self.total / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """The standard deviation of the values seen; 0 for none."""
        if not self.count:
            return 0.0
        return float(np.sqrt(max(self.squares / self.count - self.mean**2, 0.0)))


def summarize(
    lake: Lake, spec: DatasetSpec, days: Iterable[str], upstream: Upstream, *, known: Iterable[str]
) -> dict[str, NumericSummary]:
    """Summaries of every numeric feature, and of every label of an upstream, over some days.

    Entity features are weighed by entity and day, context features and labels by event.

    Args:
        known: the days whose events are read, for context features and labels.
    """
    tables = {"user": spec.users_table(), "pin": spec.pins_table(), "context": spec.events_table()}
    names = {
        scope: [f.name for f in spec.features_of(scope) if f.kind == "numeric"]  # type: ignore[arg-type]
        for scope in tables
    }
    names["context"] += [x.name for x in spec.labels_of(upstream)]
    found = {name: NumericSummary() for group in names.values() for name in group}
    for scope, table in tables.items():
        if not names[scope]:
            continue
        dataset = lake.dataset(table, known if scope == "context" else days)
        for batch in dataset.to_batches(columns=names[scope], batch_size=_CHUNK_ROWS):
            for name in names[scope]:
                found[name].add(floats(batch.column(name)))
    return found
