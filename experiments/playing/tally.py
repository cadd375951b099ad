"""What an arm achieved: sums by user, the metrics that are their ratios, and what differs.

A metric is a ratio of two sums over users, so its error is that of a ratio of means of users, who
are what is drawn (the delta method; Deng, Knoblich and Lu, 2018). Legend: N ads shown, U users, Q
quantities that are summed.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.playing.auctions import Played

Array = npt.NDArray[np.float64]

QUANTITIES = (
    "users",
    "impressions",
    "clicks",
    "good_clicks",
    "sales_after_click",
    "sales_after_view",
    "sales",
    "spend",
)
# Name -> the two sums that a metric is the ratio of.
METRICS: dict[str, tuple[str, str]] = {
    "ctr": ("clicks", "impressions"),
    "gctr": ("good_clicks", "impressions"),
    "ccvr": ("sales_after_click", "clicks"),
    "vcvr": ("sales_after_view", "impressions"),
    "cpa": ("spend", "sales"),
    "revenue": ("spend", "users"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """How far a treatment's metric is above a control's, as the logarithm of their ratio.

    Attributes:
        error: standard error of `log`; 0 for what is true and not estimated.
    """

    log: float
    error: float = 0.0

    @property
    def relative(self) -> float:
        """The same as a share of the control's."""
        return math.expm1(self.log)

    @property
    def p(self) -> float:
        """How often chance alone is as far from nothing."""
        return math.erfc(abs(self.log) / self.error / math.sqrt(2)) if self.error else math.nan

    def covers(self, true: float, *, width: float = 1.959964) -> bool:
        """Whether the interval of 95 % holds a logarithm."""
        return abs(self.log - true) <= width * self.error


def expected(played: Played) -> Array:
    """What each ad [N, Q] brings on average."""
    click, chances = played.chances.click.astype(np.float64), played.chances
    after_click = click * played.sales_after_click
    after_view = (1 - click) * played.sales_after_view
    ones = np.ones(len(click))
    columns = (
        np.zeros(len(click)),
        ones,
        click,
        click * chances.good,
        after_click,
        after_view,
        after_click + after_view,
        click * played.price,
    )
    return np.stack(columns, axis=1).astype(np.float64)


def drawn(played: Played, rng: np.random.Generator, *, planted: Array | float = 0.0) -> Array:
    """What each ad [N, Q] brings this time.

    Args:
        planted: a share by which clicks are likelier than they are, of each ad or of all.
    """
    num = len(played)
    luck = rng.random((num, 3), "f4")
    click = luck[:, 0] < played.chances.click * (1.0 + planted)
    good = click & (luck[:, 1] < played.chances.good)
    after_click = click & (luck[:, 2] < played.sales_after_click)
    after_view = ~click & (luck[:, 2] < played.sales_after_view)
    columns = (
        np.zeros(num),
        np.ones(num),
        click,
        good,
        after_click,
        after_view,
        after_click | after_view,
        click * played.price,
    )
    return np.stack([np.asarray(c, np.float64) for c in columns], axis=1)


def by_user(user_N: npt.NDArray, values_NQ: Array, users: int) -> Array:
    """Sums [U, Q] by user; each user counts once."""
    sums = np.ones((users, len(QUANTITIES)))
    for quantity in range(1, len(QUANTITIES)):
        sums[:, quantity] = np.bincount(user_N, values_NQ[:, quantity], users)
    return sums


def level(sums_UQ: Array, metric: str) -> float:
    """A metric over users; NaN where nothing is divided by."""
    above, below = (sums_UQ[:, QUANTITIES.index(q)].sum() for q in METRICS[metric])
    return float(above / below) if below else math.nan


def true_lift(control_UQ: Array, treatment_UQ: Array, metric: str) -> Lift:
    """How far the treatment is ahead when both arms have all users, by expectations."""
    return Lift(log=math.log(level(treatment_UQ, metric) / level(control_UQ, metric)))


def estimated_lift(control_UQ: Array, treatment_UQ: Array, metric: str) -> Lift:
    """How far the treatment is ahead when each arm has users of its own."""
    means, errors = zip(*(_ratio(s, metric) for s in (control_UQ, treatment_UQ)), strict=True)
    relative = [
        error / mean if mean else math.inf for mean, error in zip(means, errors, strict=True)
    ]
    log = math.log(means[1] / means[0]) if all(means) else 0.0
    return Lift(log=log, error=math.hypot(*relative))


def power(effect_log: float, error: float, *, width: float = 1.959964) -> float:
    """How often an effect is found at the level of 5 % by an estimate of that error."""
    shift = effect_log / error
    return 0.5 * (
        math.erfc((width - shift) / math.sqrt(2)) + math.erfc((width + shift) / math.sqrt(2))
    )


def sample_ratio(control: int, treatment: int) -> float:
    """How often an even split is as uneven as this one (p of a chi-square with one degree)."""
    total = control + treatment
    return math.erfc(abs(control - treatment) / math.sqrt(total) / math.sqrt(2)) if total else 1.0


def _ratio(sums_UQ: Array, metric: str) -> tuple[float, float]:
    """A ratio of means, and its standard error."""
    above, below = (sums_UQ[:, QUANTITIES.index(q)] for q in METRICS[metric])
    if not below.any():
        return 0.0, math.inf
    ratio = float(above.sum() / below.sum())
    residual = above - ratio * below
    return ratio, math.sqrt(float(np.var(residual, ddof=1)) / len(above)) / float(below.mean())
