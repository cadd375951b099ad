"""What was shown: intervals over worlds, and Holm's correction over a table."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over worlds and its 95 % confidence interval.

    Attributes:
        low, high: NaN where fewer than two worlds were seen.
        p: two-sided probability of a mean so far from zero by chance; corrected for the table it
            stands in by `holm`.
    """

    mean: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """`up` or `down` where chance is ruled out at 5 %, else `open`."""
        if not self.p < _ALPHA:
            return "open"
        return "up" if self.mean > 0 else "down"


def interval(values_SD: npt.NDArray[np.float64]) -> Interval:
    """Student's t over the means of S worlds with D days each.

    Days of one world share a model and its users: they are one number. Resampling five worlds
    draws the same one twice and never one that was not seen, so that its intervals are too narrow;
    those of t cover what they promise (a test simulates it). NaN days are left out.

    Source: Student 1908; on resampling few clusters, Davison and Hinkley 1997, section 3.8.
    """
    known_S = ~np.isnan(values_SD).all(axis=1)
    means_S = np.nanmean(values_SD[known_S], axis=1) if known_S.any() else np.empty(0)
    count = len(means_S)
    mean = float(means_S.mean()) if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, math.nan, 1.0)
    error = float(means_S.std(ddof=1)) / math.sqrt(count)
    if error == 0:
        return Interval(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    reach = _quantile(count - 1) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Interval(mean, mean - reach, mean + reach, p)


def holm(found: list[Interval]) -> list[Interval]:
    """The same intervals with p corrected for how many there are, as if all were read at once.

    The chance that any of them looks decided though nothing is there stays below 5 %. Intervals
    stay those of one comparison.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    corrected = [1.0] * len(found)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, found[i].p * (len(found) - rank)))
        corrected[i] = worst
    return [replace(x, p=p) for x, p in zip(found, corrected, strict=True)]


@lru_cache
def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(1 - _ALPHA / 2, freedom))
