"""Counts as features: how often, and with what outcome, an entity was shown before a day.

The pipeline counts impressions and positive labels in windows that end with a day
(`feature_store/spark/counting.py`). An example of day d sees those that ended with d - 1, and rates

    (positives + smoothing * p) / (impressions + smoothing),    p = all positives / all impressions

of the same window: without a history of its own an entity has everybody's rate. Where nobody had an
impression there is no p, and the rate is missing.

Shapes: N entities, W windows, C counts (impressions first), B rows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import ENTITIES, Entity, shift_day
from feature_store.contracts.datasets import WINDOWS, DatasetSpec
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import count_matrix

_CHUNK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Counting:
    """How counts become features.

    Attributes:
        smoothing: impressions that everybody's rate weighs in an entity's.
        first_ds: first day with events; nothing was counted before it.
    """

    smoothing: float
    first_ds: str


class RowsOfEntities(Protocol):
    """The rows that entities have in a table; an unknown one has the row after the last."""

    def __len__(self) -> int: ...

    def rows_of(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The row of each hashed id."""
        ...


class EntityCounts:
    """The counting features of one entity type, as of the start of a day.

    Args:
        ds: the day; its own counts are not read.
        rows: the entities that features are made for.

    Raises:
        MissingInput: the day before was not counted, and had events.
    """

    def __init__(
        self,
        lake: Lake,
        spec: DatasetSpec,
        entity: Entity,
        ds: str,
        counting: Counting,
        rows: RowsOfEntities,
    ) -> None:
        self._lake, self._spec, self._entity, self._counting = lake, spec, entity, counting
        self._names = tuple(f.name for f in spec.counting_features(entity))
        self._smoothing, self._unknown = np.float32(counting.smoothing), len(rows)
        # One row per entity, then one for the unknown.
        self._counts_NWC, totals_WC = self._as_of(ds, rows)
        shown_W1, positives_WL = totals_WC[:, :1], totals_WC[:, 1:]
        prior_WL = np.full(positives_WL.shape, np.nan)
        np.divide(positives_WL, shown_W1, out=prior_WL, where=shown_W1 > 0)
        self._prior_WL = prior_WL.astype(np.float32)

    def recall(self, rows_of_days: Mapping[str, RowsOfEntities]) -> None:
        """Append the counts of entities as of earlier days, one day after the other.

        Their rates are drawn towards everybody's rate before this day, like all others: that of
        their own day, which whoever has no history has to the last digit, would be a date.

        Raises:
            MissingInput: the day before one of them was not counted, and had events.
        """
        recalled = [self._as_of(ds, rows)[0][:-1] for ds, rows in rows_of_days.items()]
        self._counts_NWC = np.concatenate([self._counts_NWC, *recalled])

    def take(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float32]]:
        """The features of chosen rows: name -> float32 [B], NaN for unknown entities."""
        counts_BWC = self._counts_NWC[rows].astype(np.float32)
        counts_BWC[rows == self._unknown] = np.nan
        positives_BWL = counts_BWC[:, :, 1:] + self._smoothing * self._prior_WL
        rates_BWL = positives_BWL / (counts_BWC[:, :, :1] + self._smoothing)
        together = np.concatenate([counts_BWC, rates_BWL], axis=2)
        columns = np.ascontiguousarray(together.reshape(len(rows), len(self._names)).T)
        return dict(zip(self._names, columns, strict=True))

    def _as_of(
        self, ds: str, rows: RowsOfEntities
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Counts [rows + 1, W, C] before a day, and those of everybody together [W, C]."""
        shape = (len(WINDOWS), len(self._spec.counted))
        counts_NWC = np.zeros((len(rows) + 1, *shape), np.int32)
        totals_WC = np.zeros(shape, np.int64)
        found = _counted_before(self._lake, self._spec, self._entity, ds, self._counting)
        for hashes, counts in found:
            totals_WC += counts.sum(axis=0, dtype=np.int64)
            at = rows.rows_of(hashes)
            known = at < len(rows)
            counts_NWC[at[known]] = counts[known]
        return counts_NWC, totals_WC


def largest_counts(
    lake: Lake, spec: DatasetSpec, days: Iterable[str], counting: Counting
) -> dict[str, float]:
    """The largest value that each counting feature may take, judged by the counts before some days.

    That of a count is the largest one of a single day times the days of its window. That of a rate
    is 1. Both are 0 where nothing was ever counted.
    """
    found: dict[str, float] = {}
    chosen = tuple(days)
    for entity in ENTITIES:
        most_C = np.zeros(len(spec.counted), np.int64)
        for ds in chosen:
            for _, counts in _counted_before(lake, spec, entity, ds, counting):
                most_C = np.maximum(most_C, counts[:, 0].max(axis=0, initial=0))
        days_W1 = np.array(WINDOWS)[:, None]
        most_WC = np.concatenate([days_W1 * most_C, days_W1 * 0 + (most_C[1:] > 0)], axis=1)
        names = (f.name for f in spec.counting_features(entity))
        found |= zip(names, map(float, most_WC.reshape(-1)), strict=True)
    return found


def _counted_before(
    lake: Lake, spec: DatasetSpec, entity: Entity, ds: str, counting: Counting
) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]]:
    """Hashed ids [n] and counts [n, W, C] as of the end of the day before, a batch at a time."""
    if ds <= counting.first_ds:
        return
    dataset = lake.dataset(spec.counts_table(entity), [shift_day(ds, -1)])
    for batch in dataset.to_batches(batch_size=_CHUNK_ROWS):
        yield stable_hash(batch.column(0)), count_matrix(batch, len(spec.counted))
