"""Paired comparisons with confidence intervals, over seeds and the days within them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`up` or `down` when the interval leaves out zero, else `open`."""
        if self.low > 0:
            return "up"
        return "down" if self.high < 0 else "open"


def bootstrap(values_SD: npt.NDArray[np.float64], *, seed: int = 0) -> Interval:
    """The mean of S seeds with D days each, resampled as they arose: seeds, then days of a seed.

    Days of one seed share a world and a model, so they are not S x D independent numbers. NaN days
    (no positive to rank, say) are left out. With one value the interval is the value.

    Source: Davison and Hinkley 1997, *Bootstrap Methods and their Application*, section 3.8.
    """
    seeds, days = values_SD.shape
    random = np.random.default_rng(seed)
    chosen_RS = random.integers(0, seeds, (_RESAMPLES, seeds))
    chosen_RSD = random.integers(0, days, (_RESAMPLES, seeds, days))
    means_R = np.nanmean(values_SD[chosen_RS[:, :, None], chosen_RSD], axis=(1, 2))
    low, high = np.nanquantile(means_R, (0.025, 0.975))
    return Interval(float(np.nanmean(values_SD)), float(low), float(high))
