"""Timelines: what each user did, newest first, over many days, some users at a time.

Shapes: U users of a batch, A actions of all of them together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.reading.actions import Actions, Columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Timelines:
    """The timelines of some users, one after the other.

    Attributes:
        user_U: hashed ids.
        offsets: [U + 1]; the actions of user i are offsets[i] : offsets[i + 1], newest first.
        pin_A: hashed ids.
        ts_A: times, in microseconds since 1970-01-01.
        action_A, surface_A: 1 + position in the data set's declaration.
        duration_s_A: seconds, NaN where unknown.
    """

    user_U: npt.NDArray[np.uint64]
    offsets: npt.NDArray[np.int64]
    pin_A: npt.NDArray[np.uint64]
    ts_A: npt.NDArray[np.int64]
    action_A: npt.NDArray[np.int32]
    surface_A: npt.NDArray[np.int32]
    duration_s_A: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.user_U)

    def take(self, rows: npt.NDArray[np.int64]) -> "Timelines":
        """The timelines of chosen users, in that order."""
        starts, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Timelines(
            user_U=self.user_U[rows],
            offsets=offsets,
            pin_A=self.pin_A[at],
            ts_A=self.ts_A[at],
            action_A=self.action_A[at],
            surface_A=self.surface_A[at],
            duration_s_A=self.duration_s_A[at],
        )


def timelines(
    actions: Actions,
    *,
    users: int,
    max_actions: int,
    seed: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Timelines]:
    """The timelines of all users, batch by batch; the same every time for the same seed.

    Actions of one moment keep an order of their own, that of their hashed event ids.

    Args:
        users: of a batch; the last batch of a bucket may have fewer.
        max_actions: the newest ones of a user that are kept.
        seed: permutes the buckets, and the users of a bucket; None: buckets in order, users by
            descending hash.
        shard: (rank, ranks): the users of this rank; every user belongs to one.
    """
    if users < 1 or max_actions < 1:
        raise ValueError(f"expected >= 1, found users {users}, max_actions {max_actions}")
    random = None if seed is None else np.random.default_rng((seed, *shard))
    order = np.array(actions.buckets_of(shard))
    for bucket in order if random is None else random.permutation(order):
        found = newest_first(actions.columns(int(bucket)), max_actions)
        rows = np.arange(len(found)) if random is None else random.permutation(len(found))
        for start in range(0, len(rows), users):
            yield found.take(rows[start : start + users])


def newest_first(columns: Columns, max_actions: int) -> Timelines:
    """Group actions by user, newest first, the newest `max_actions` of each."""
    order = np.lexsort((columns["tie"], columns["ts"], columns["user"]))[::-1]
    user_A = columns["user"][order]
    first = np.flatnonzero(np.append(True, user_A[1:] != user_A[:-1])[: len(user_A)])
    lengths = np.diff(np.append(first, len(user_A)))
    kept = np.arange(len(user_A)) - np.repeat(first, lengths) < max_actions
    order = order[kept]
    return Timelines(
        user_U=user_A[first],
        offsets=np.concatenate([[0], np.cumsum(np.minimum(lengths, max_actions))]),
        pin_A=columns["pin"][order],
        ts_A=columns["ts"][order],
        action_A=columns["action"][order],
        surface_A=columns["surface"][order],
        duration_s_A=columns["duration_s"][order],
    )
