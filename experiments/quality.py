"""What predictions and embeddings are worth to those who use them.

Shapes: N rows, U users, P Pins, E embedding width.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from experiments.truth import DayTruth, expected_auc
from models.training.metrics import normalized_entropy

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Metrics = dict[str, float]

_USERS_AT_ONCE = 1024
_SMALLEST = 1e-7


def of_predictions(chance_N: npt.NDArray[np.float64], truth: DayTruth, number: int) -> Metrics:
    """What predicted chances of a day's impressions are worth.

    Args:
        number: of the day.
    """
    known_N, label_N = truth.label_N(number), truth.label_N()
    q_N = np.clip(chance_N, _SMALLEST, 1 - _SMALLEST)
    rate = float(label_N.mean())
    loss = float(-(label_N * np.log(q_N) + (1 - label_N) * np.log1p(-q_N)).mean())
    return {
        "auc": expected_auc(chance_N, known_N),
        "auc_eventual": expected_auc(chance_N, label_N),
        "auc_true": expected_auc(chance_N, truth.chance_N),
        "ne": normalized_entropy(loss, rate) if 0 < rate < 1 else float("nan"),
        "calibration": float(q_N.sum() / truth.chance_N.sum()),
    }


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings by key; keys ascend, and occur once."""

    key_N: Keys
    vectors_NE: Floats

    def merged(self, today: "Vectors", weight: float) -> Self:
        """These as the pool of yesterday, and today's: a moving average where there are both.

        Source: DERM, appendix C: weight * pool + (1 - weight) * daily, not normalised again.
        """
        keys = np.union1d(self.key_N, today.key_N)
        was, now = self.rows(keys), today.rows(keys)
        past = np.where((now >= 0) & (was >= 0), weight, now < 0).astype(np.float32)[:, None]
        merged = past * self.vectors_NE[was] + (1 - past) * today.vectors_NE[now]
        return type(self)(keys, merged)

    def rows(self, key_N: Keys) -> npt.NDArray[np.int64]:
        """The row of each key, -1 where it is unknown."""
        at = np.minimum(np.searchsorted(self.key_N, key_N), len(self.key_N) - 1)
        return np.where(self.key_N[at] == key_N, at, -1)

    def mean_cosine(self, other: "Vectors") -> float:
        """Mean cosine of the keys that both have."""
        rows = other.rows(self.key_N)
        both = rows >= 0
        if not both.any():
            return float("nan")
        mine, theirs = self.vectors_NE[both], other.vectors_NE[rows[both]]
        lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        return float(((mine * theirs).sum(axis=1) / lengths).mean())


def dot_auc(
    users: Vectors,
    pins: Vectors,
    user_N: Keys,
    pin_N: Keys,
    chance_N: npt.NDArray[np.float64],
) -> float:
    """Expected AUC of the inner product, of the rows whose user and Pin have an embedding.

    Args:
        chance_N: of a positive; a label, 0 or 1, is a chance too. NaN rows are left out.
    """
    u, p = users.rows(user_N), pins.rows(pin_N)
    known = (u >= 0) & (p >= 0) & ~np.isnan(chance_N)
    score = (users.vectors_NE[u[known]] * pins.vectors_NE[p[known]]).sum(axis=1)
    return expected_auc(score.astype(np.float64), chance_N[known].astype(np.float64))


def recall_at(
    k: int, users: Vectors, pins: Vectors, user_N: Keys, pin_N: Keys, clicked_N: Floats
) -> float:
    """Share of a day's positives whose Pin is among the user's k nearest of all Pins.

    Exact search by inner product; positives of users or Pins without an embedding are left out.
    """
    hit = clicked_N == 1
    u, p = users.rows(user_N[hit]), pins.rows(pin_N[hit])
    known = (u >= 0) & (p >= 0)
    u, p = u[known], p[known]
    if not len(u):
        return float("nan")
    found = 0
    distinct, of = np.unique(u, return_inverse=True)
    for start in range(0, len(distinct), _USERS_AT_ONCE):
        block = distinct[start : start + _USERS_AT_ONCE]
        score_UP = users.vectors_NE[block] @ pins.vectors_NE.T
        top_UK = np.argpartition(-score_UP, min(k, score_UP.shape[1]) - 1, axis=1)[:, :k]
        mine = (of >= start) & (of < start + len(block))
        found += int((top_UK[of[mine] - start] == p[mine, None]).any(axis=1).sum())
    return found / len(u)
