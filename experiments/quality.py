"""What embeddings are worth to those who use them: ranking, retrieval, stability.

Shapes: N rows, U users, P Pins, E embedding width.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_USERS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings by key; keys ascend, and occur once."""

    key_N: Keys
    vectors_NE: Floats

    @classmethod
    def last(cls, key_N: Keys, vectors_NE: Floats) -> Self:
        """Of rows in the order of time, the last one of each key."""
        keys, newest = np.unique(key_N[::-1], return_index=True)
        return cls(keys, vectors_NE[::-1][newest])

    def updated(self, newer: "Vectors") -> "Vectors":
        """These, with the newer ones in place of or beside them."""
        keys = np.concatenate([self.key_N, newer.key_N])
        return Vectors.last(keys, np.concatenate([self.vectors_NE, newer.vectors_NE]))

    def rows(self, key_N: Keys) -> npt.NDArray[np.int64]:
        """The row of each key, -1 where it is unknown."""
        at = np.minimum(np.searchsorted(self.key_N, key_N), len(self.key_N) - 1)
        return np.where(self.key_N[at] == key_N, at, -1)

    def mean_cosine(self, other: "Vectors") -> float:
        """Mean cosine of the keys that both have; vectors have norm 1."""
        rows = other.rows(self.key_N)
        both = rows >= 0
        if not both.any():
            return float("nan")
        return float((self.vectors_NE[both] * other.vectors_NE[rows[both]]).sum(axis=1).mean())


def dot_auc(users: Vectors, pins: Vectors, user_N: Keys, pin_N: Keys, clicked_N: Floats) -> float:
    """AUC of the inner product for the rows whose user and Pin have an embedding; NaN if none."""
    u, p = users.rows(user_N), pins.rows(pin_N)
    known = (u >= 0) & (p >= 0) & ~np.isnan(clicked_N)
    clicked = clicked_N[known] == 1
    positives, negatives = int(clicked.sum()), int((~clicked).sum())
    if not positives or not negatives:
        return float("nan")
    score = (users.vectors_NE[u[known]] * pins.vectors_NE[p[known]]).sum(axis=1)
    ranks = rankdata(score)
    wins = ranks[clicked].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def recall_at(
    k: int, users: Vectors, pins: Vectors, user_N: Keys, pin_N: Keys, clicked_N: Floats
) -> float:
    """Share of a day's clicks whose Pin is among the user's k nearest of all Pins.

    Exact search by inner product; clicks of users or on Pins without an embedding are left out.
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
