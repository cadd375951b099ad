"""Users whose taste drifts, seen through noise: which average of what was seen foretells best.

No model takes part. A user's taste is a unit vector that drifts by a step a day; an upstream would
see it with noise, on the days on which the user comes. A ranker knows how popular a Pin is, and the
inner product of the Pin with the user's vector in yesterday's pool.

Shapes: D days, N users, E width, P Pins a user is shown a day, F features.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from experiments.ranking.pools import Dailies, Pools
from experiments.truth import expected_auc

Floats = npt.NDArray[np.float64]

_USERS, _WIDTH, _DAYS, _PINS = 2_000, 32, 80, 8
# Days that rankers learn from, and those that they are measured on.
_LEARN, _MEASURE = range(50, 60), range(60, 80)
_COMES, _BIAS, _TASTE, _POPULARITY = 0.5, -4.0, 3.0, 1.0
_STEPS, _RIDGE = 20, 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How fast tastes move, and how badly they are seen; lengths, where a taste has length 1.

    Attributes:
        drift: of a day's step.
        noise: of what is added to what is seen.
    """

    drift: float
    noise: float

    @property
    def name(self) -> str:
        """Of the data set."""
        return f"drift-{self.drift:g}-noise-{self.noise:g}"


DRIFTS = tuple(
    Drift(drift=drift, noise=noise)
    for drift, noise in ((0.0, 1.0), (0.05, 0.3), (0.1, 1.0), (0.3, 0.3), (0.5, 0.1))
)


@dataclass(frozen=True, slots=True)
class DriftingWorld:
    """One draw of such users.

    Attributes:
        dailies: what is seen of their tastes.
        pins_DNPE: what they are shown, unit vectors.
        popular_DNP: what is known of the Pins anyway, a part of the log-odds.
        chance_DNP: of a click.
    """

    dailies: Dailies
    pins_DNPE: npt.NDArray[np.float32]
    popular_DNP: Floats
    chance_DNP: Floats


@lru_cache(maxsize=1)
def drifting(drift: Drift, seed: int) -> DriftingWorld:
    """The world of a seed; a process keeps the last one, for the next variant."""
    random = np.random.default_rng((seed, 7))
    step, noise = (length / np.sqrt(_WIDTH) for length in (drift.drift, drift.noise))
    taste_NE = _unit(random.standard_normal((_USERS, _WIDTH)))
    seen_DNE = np.full((_DAYS, _USERS, _WIDTH), np.nan, np.float32)
    shown = (_DAYS, _USERS, _PINS)
    pins_DNPE = np.empty((*shown, _WIDTH), np.float32)
    fit_DNP = np.empty(shown)
    for day in range(_DAYS):
        taste_NE = _unit(taste_NE + step * random.standard_normal(taste_NE.shape))
        came = random.random(_USERS) < _COMES
        seen_DNE[day, came] = (taste_NE + noise * random.standard_normal(taste_NE.shape))[came]
        pins_DNPE[day] = _unit(random.standard_normal((_USERS, _PINS, _WIDTH)))
        fit_DNP[day] = np.einsum("npe,ne->np", pins_DNPE[day], taste_NE)
    popular_DNP = _POPULARITY * random.standard_normal(shown)
    # An inner product of unit vectors is small where they are wide: as much as one of a few topics.
    odds_DNP = _BIAS + popular_DNP + _TASTE * np.sqrt(_WIDTH) / 2 * fit_DNP
    return DriftingWorld(
        dailies=Dailies(np.arange(_USERS), seen_DNE),
        pins_DNPE=pins_DNPE,
        popular_DNP=popular_DNP,
        chance_DNP=1 / (1 + np.exp(-odds_DNP)),
    )


def measured(world: DriftingWorld, pools: Pools | None, seed: int) -> float:
    """The expected AUC of a logistic ranker on days after those it has learned.

    Args:
        pools: what it joins with; None: it knows popularity alone.
    """
    random = np.random.default_rng((seed, 11))
    learned_NF, chance_N = _features(world, pools, _LEARN)
    weight_F = _logistic(learned_NF, (random.random(len(chance_N)) < chance_N).astype(np.float64))
    told_NF, truth_N = _features(world, pools, _MEASURE)
    return expected_auc(told_NF @ weight_F, truth_N)


def _features(world: DriftingWorld, pools: Pools | None, days: range) -> tuple[Floats, Floats]:
    """Features [N, F] and chances [N] of all that is shown on some days."""
    at = slice(days.start, days.stop)
    popular_N = world.popular_DNP[at].ravel()
    columns = [np.ones_like(popular_N), popular_N]
    if pools is not None:
        yesterday = pools.vectors_DNE[days.start - 1 : days.stop - 1]
        fit_DNP = np.einsum("dnpe,dne->dnp", world.pins_DNPE[at], yesterday)
        columns.append(fit_DNP.ravel().astype(np.float64))
    return np.stack(columns, axis=1), world.chance_DNP[at].ravel()


def _logistic(x_NF: Floats, label_N: Floats) -> Floats:
    """Weights [F] of a logistic regression, by Newton's method."""
    weight_F = np.zeros(x_NF.shape[1])
    for _ in range(_STEPS):
        p_N = 1 / (1 + np.exp(-np.clip(x_NF @ weight_F, -30, 30)))
        gradient_F = x_NF.T @ (label_N - p_N) - _RIDGE * weight_F
        curve_FF = (x_NF * (p_N * (1 - p_N))[:, None]).T @ x_NF
        weight_F = weight_F + np.linalg.solve(curve_FF + _RIDGE * np.eye(len(weight_F)), gradient_F)
    return weight_F


def _unit(x: Floats) -> Floats:
    found: Floats = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return found
