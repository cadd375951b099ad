"""What was shown: intervals over worlds or over users, and Holm's correction over a table.

Shapes: S seeds, D rounds of one seed, N rows, U users, R resamples.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

_ALPHA = 0.05
_RESAMPLES = 1000

Floats = npt.NDArray[np.float64]
# Columns by name, `user` among them.
Rows = Mapping[str, npt.NDArray[np.generic]]
# Rows, looked at once, become a function of how often each of them was drawn.
Statistic = Callable[[Rows], Callable[[Floats], float]]


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


def mean_of(column: str) -> Statistic:
    """The mean of a column; NaN rows are left out."""

    def prepare(rows: Rows) -> Callable[[Floats], float]:
        values_N = rows[column].astype(np.float64)
        known_N = ~np.isnan(values_N)
        values_N = np.where(known_N, values_N, 0.0)

        def weighted(weight_N: Floats) -> float:
            total = float((weight_N * known_N).sum())
            return float((weight_N * values_N).sum()) / total if total else math.nan

        return weighted

    return prepare


def auc_of(score: str, label: str) -> Statistic:
    """The area under the ROC curve of a score; rows whose label is NaN are left out."""

    def prepare(rows: Rows) -> Callable[[Floats], float]:
        label_N = rows[label].astype(np.float64)
        known = np.flatnonzero(~np.isnan(label_N))
        order = known[np.argsort(rows[score][known], kind="stable")]
        scores_N, positive_N = rows[score][order], label_N[order]
        first = np.flatnonzero(np.r_[True, scores_N[1:] != scores_N[:-1]][: len(order)])

        def weighted(weight_N: Floats) -> float:
            won_N, lost_N = weight_N[order] * positive_N, weight_N[order] * (1 - positive_N)
            pairs = float(won_N.sum() * lost_N.sum())
            if not pairs:
                return math.nan
            # Rows of one score tie, and half of them win.
            tied_won, tied_lost = np.add.reduceat(won_N, first), np.add.reduceat(lost_N, first)
            below = np.cumsum(tied_lost) - tied_lost
            return float((tied_won * (below + tied_lost / 2)).sum()) / pairs

        return weighted

    return prepare


def over_users(
    statistic: Statistic, pairs: list[tuple[Rows, Rows | None]], *, resamples: int = _RESAMPLES
) -> Interval:
    """A mean over seeds of a statistic, or of its difference, with users drawn anew.

    All rows of a user are drawn together, in every seed and on both sides alike: seeds share the
    users of a data set, so they are averaged and no sample. Deterministic.

    Args:
        pairs: per seed the rows of a variant, and of what it is compared with.

    Source: percentile bootstrap of clusters, Davison and Hinkley 1997, sections 2.4 and 3.8; p is
        that of the interval that touches zero, and never below 1 / resamples.
    """
    sides = [side for pair in pairs for side in pair if side is not None]
    if not sides:
        return Interval(math.nan, math.nan, math.nan, 1.0)
    users_U = np.unique(np.concatenate([rows["user"] for rows in sides]))
    looked = [_looked_at(statistic, users_U, pair) for pair in pairs]

    def value(drawn_U: Floats) -> float:
        return float(np.mean([difference(drawn_U) for difference in looked]))

    found, random = value(np.ones(len(users_U))), np.random.default_rng(0)
    chance = np.full(len(users_U), 1 / len(users_U))
    drawn_RU = (random.multinomial(len(users_U), chance) for _ in range(resamples))
    values_R = np.array([value(drawn_U.astype(np.float64)) for drawn_U in drawn_RU])
    values_R = values_R[~np.isnan(values_R)]
    if len(users_U) < 2 or not len(values_R):
        return Interval(found, math.nan, math.nan, 1.0)
    low, high = np.quantile(values_R, [_ALPHA / 2, 1 - _ALPHA / 2])
    beyond = min(float((values_R <= 0).mean()), float((values_R >= 0).mean()))
    p = min(1.0, max(2 * beyond, 1 / len(values_R)))
    return Interval(found, float(low), float(high), p)


def _looked_at(
    statistic: Statistic, users_U: npt.NDArray[np.generic], pair: tuple[Rows, Rows | None]
) -> Callable[[Floats], float]:
    """The statistic of a variant less that of its counterpart, by how often users were drawn."""
    mine, other = pair
    at_N, of_mine = np.searchsorted(users_U, mine["user"]), statistic(mine)
    if other is None:
        return lambda drawn_U: of_mine(drawn_U[at_N])
    other_N, of_other = np.searchsorted(users_U, other["user"]), statistic(other)
    return lambda drawn_U: of_mine(drawn_U[at_N]) - of_other(drawn_U[other_N])


@lru_cache
def _quantile(freedom: int) -> float:
    return float(stats.t.ppf(1 - _ALPHA / 2, freedom))
