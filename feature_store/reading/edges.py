"""Edges: who did what with which Pin, how often and when last, over many days.

Shapes: K edges of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import days_between
from feature_store.reading.actions import Actions, Columns

_EPOCH = "1970-01-01"


@dataclass(frozen=True, kw_only=True, slots=True)
class Edges:
    """Directed edges from users to Pins, each (user, relation, Pin) once, in that order.

    Attributes:
        user_K, pin_K: hashed ids.
        relation_K: the action, 1 + its position in the data set's declaration.
        count_K: how often.
        weight_K: the same, each time halved for every half-life that has passed since.
        last_K: the day it happened last, since 1970-01-01.
    """

    user_K: npt.NDArray[np.uint64]
    relation_K: npt.NDArray[np.int32]
    pin_K: npt.NDArray[np.uint64]
    count_K: npt.NDArray[np.int64]
    weight_K: npt.NDArray[np.float64]
    last_K: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user_K)


def edges(
    actions: Actions, *, ds: str, half_life_days: float = 90.0, shard: tuple[int, int] = (0, 1)
) -> Iterator[Edges]:
    """All edges, a bucket of users at a time.

    Args:
        ds: the day as of whose end weights are taken.
        half_life_days: after which an action weighs half.
        shard: (rank, ranks): the users of this rank; every user belongs to one.

    Raises:
        ValueError: an action is of a later day.
    """
    if half_life_days <= 0:
        raise ValueError(f"half_life_days: expected > 0, found {half_life_days}")
    today = len(days_between(_EPOCH, ds)) - 1
    for bucket in actions.buckets_of(shard):
        yield count_edges(actions.columns(bucket), today, half_life_days)


def count_edges(columns: Columns, today: int, half_life_days: float) -> Edges:
    """Group actions by user, action and Pin.

    Args:
        today: the day as of whose end weights are taken, since 1970-01-01.

    Raises:
        ValueError: an action is of a later day.
    """
    order = np.lexsort((columns["day"], columns["pin"], columns["action"], columns["user"]))
    user, relation, pin, day = (columns[n][order] for n in ("user", "action", "pin", "day"))
    if len(day) and day.max() > today:
        raise ValueError(f"expected days up to {today}, found {day.max()}")
    changes = (user[1:] != user[:-1]) | (relation[1:] != relation[:-1]) | (pin[1:] != pin[:-1])
    first = np.flatnonzero(np.append(True, changes)[: len(user)])
    ends = np.append(first[1:], len(user)) if len(first) else first
    decayed = np.exp2((day - today) / half_life_days)
    return Edges(
        user_K=user[first],
        relation_K=relation[first],
        pin_K=pin[first],
        count_K=ends - first,
        weight_K=np.add.reduceat(decayed, first) if len(first) else np.empty(0),
        last_K=day[ends - 1],
    )
