"""Numbers with bounds: a guard's check, and bounds that a data set declares for itself."""

from dataclasses import dataclass

from pydantic import Field

from feature_store.contracts.base import Contract


class Bounds(Contract):
    """Bounds of guards that fit a data set better than the recipe's; None leaves the recipe's.

    They are meant for a day of many: on a small one each lies as much lower as chance can do.

    Attributes:
        max_late_auc: how well the features may tell late labels from those that were not late.
        max_auc_drop: how far the AUC may fall below the last day that knew its own.
        max_calibration_off: how far a ranker's predicted positives may be from the observed ones,
            on any surface, as the logarithm of their ratio.
        min_effective_rank: lowest effective rank of embeddings; 1 is a collapse.
        min_day_to_day_cosine: lowest mean cosine of a pool to yesterday's.
        min_coverage: lowest share of the day's rows, and of its entities, that yesterday knew.
        max_pool_shrink: largest share of a pool that may go in a day.
    """

    max_late_auc: float | None = Field(default=None, ge=0.5, le=1)
    max_auc_drop: float | None = Field(default=None, ge=0)
    max_calibration_off: float | None = Field(default=None, ge=0)
    min_effective_rank: float | None = Field(default=None, ge=1)
    min_day_to_day_cosine: float | None = Field(default=None, ge=-1, le=1)
    min_coverage: float | None = Field(default=None, ge=0, le=1)
    max_pool_shrink: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A measured number and its bound; None on either side: there is nothing to compare.

    Attributes:
        least: whether the bound is the lowest that passes; else it is the highest.
    """

    number: str
    found: float | None
    bound: float | None
    least: bool = True

    @property
    def breaks(self) -> bool:
        """Whether the number is outside its bound. NaN is."""
        if self.found is None or self.bound is None:
            return False
        return not (self.found >= self.bound if self.least else self.found <= self.bound)
