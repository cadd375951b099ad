"""Which rows of a sequence predict which actions: training pairs from timelines, without a loop.

A day is learned once: its positives are the targets. A sequence ends at an action drawn from the
window before them, so what a row sees always came before what it predicts.

Shapes: U users, A actions of all their timelines, S sequences, R their elements, Q pairs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_store.contracts.sequences import SamplingConfig
from feature_store.reading.timelines import Timelines

DAY_US = 86_400_000_000

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class OldestFirst:
    """Timelines in the order in which they happened.

    Attributes:
        offsets: [U + 1]; the actions of user i are offsets[i] : offsets[i + 1].
    """

    timelines: Timelines
    offsets: Ints
    ts_A: Ints

    @classmethod
    def of(cls, timelines: Timelines) -> "OldestFirst":
        """Turn timelines around; users stay where they are."""
        lengths = np.diff(timelines.offsets)
        end_A = np.repeat(timelines.offsets[1:] + timelines.offsets[:-1] - 1, lengths)
        at_A = end_A - np.arange(len(timelines.ts_A))
        turned = Timelines(
            user_U=timelines.user_U,
            offsets=timelines.offsets,
            pin_A=timelines.pin_A[at_A],
            ts_A=timelines.ts_A[at_A],
            action_A=timelines.action_A[at_A],
            surface_A=timelines.surface_A[at_A],
            duration_s_A=timelines.duration_s_A[at_A],
        )
        return cls(timelines=turned, offsets=timelines.offsets, ts_A=turned.ts_A)

    def take(self, users: Ints) -> "OldestFirst":
        """The timelines of chosen users, in that order."""
        taken = self.timelines.take(users)
        return OldestFirst(timelines=taken, offsets=taken.offsets, ts_A=taken.ts_A)

    @cached_property
    def owner(self) -> Ints:
        """The position of each action's user."""
        owner_A: Ints = np.repeat(np.arange(len(self.timelines)), np.diff(self.offsets))
        return owner_A

    def moments(self) -> Ints:
        """The last action of the same user and moment, for each: order within one is arbitrary."""
        user_A = self.owner
        ends_A = np.append((user_A[1:] != user_A[:-1]) | (self.ts_A[1:] != self.ts_A[:-1]), True)
        last = np.flatnonzero(ends_A[: len(user_A)])
        last_A: Ints = last[np.searchsorted(last, np.arange(len(user_A)))]
        return last_A


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Sequences, and which of their rows predicts which action.

    Attributes:
        user_S: positions of their users.
        first_S, last_S: their actions, first and last.
        sequence_Q: the sequence of a pair.
        row_Q: the action whose row predicts; in the sequence.
        target_Q: the action that is predicted; after the sequence, or after the row.
        weight_Q: within the sequence.
    """

    user_S: Ints
    first_S: Ints
    last_S: Ints
    sequence_Q: Ints
    row_Q: Ints
    target_Q: Ints
    weight_Q: npt.NDArray[np.float32]


def sample(
    acts: OldestFirst,
    target_A: Bools,
    config: SamplingConfig,
    *,
    max_len: int,
    random: np.random.Generator,
) -> Pairs:
    """Draw one sequence of every user who has a target with an action before it, and its pairs.

    Args:
        target_A: the actions that may be predicted: positives of the day.
        max_len: M.

    Source: PinnerFormer (arXiv 2205.04507), section 3.4; A.4.4 for the weights of `sasrec`.
    """
    targets = np.flatnonzero(target_A)
    if config.objective in ("next_action", "sasrec"):
        targets = targets[targets > acts.offsets[:-1][acts.owner[targets]]]
    last_S = _ends(acts, targets, config, random)
    user_S = acts.owner[last_S]
    first_S = np.maximum(last_S - max_len + 1, acts.offsets[user_S])
    if config.objective == "next_action":
        sequence_Q, row_Q, target_Q = np.arange(len(last_S)), last_S, last_S + 1
    elif config.objective == "sasrec":
        sequence_Q, row_Q, target_Q = _every_next(targets, first_S, last_S)
    elif config.objective == "all_action":
        sequence_Q, target_Q = _some_of(targets, *_ahead(acts, targets, last_S), config, random)
        row_Q = last_S[sequence_Q]
    else:
        sequence_Q, row_Q, target_Q = _dense(acts, targets, (first_S, last_S), config, random)
    weight_Q = np.ones(len(row_Q), np.float32)
    if config.objective == "sasrec":
        # The newest row weighs as much as all others together.
        newest_Q = row_Q == last_S[sequence_Q]
        others_S = np.bincount(sequence_Q[~newest_Q], minlength=len(last_S))
        weight_Q = np.where(newest_Q, np.maximum(others_S, 1)[sequence_Q], 1).astype(np.float32)
    return Pairs(
        user_S=user_S,
        first_S=first_S,
        last_S=last_S,
        sequence_Q=sequence_Q,
        row_Q=row_Q,
        target_Q=target_Q,
        weight_Q=weight_Q,
    )


def _ends(
    acts: OldestFirst, targets: Ints, config: SamplingConfig, random: np.random.Generator
) -> Ints:
    """The last action of a sequence of every user who can have one."""
    user_T = acts.owner[targets]
    users, first_T, count = np.unique(user_T, return_index=True, return_counts=True)
    if config.objective == "next_action":
        before: Ints = targets[first_T + _below(count, random)] - 1
        return before
    newest: Ints = targets[first_T + count - 1]
    if config.objective == "sasrec":
        return newest - 1
    # The window of what ends here must reach the user's newest target.
    begin = acts.ts_A[newest] - config.window_days * DAY_US
    reach_A = acts.ts_A >= np.repeat(_per_user(acts, users, begin, default=2**62), _lengths(acts))
    low = newest + 1 - _counted(reach_A, acts.offsets[users], newest + 1)
    choices = np.maximum(newest - low, 0)
    some = choices > 0
    ends: Ints = acts.moments()[(low + _below(np.maximum(choices, 1), random))[some]]
    return ends[ends < newest[some]]


def _every_next(targets: Ints, first_S: Ints, last_S: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows of the sequences whose next action is a target."""
    low = np.searchsorted(targets, first_S, side="right")
    high = np.searchsorted(targets, last_S + 1, side="right")
    sequence_Q = np.repeat(np.arange(len(last_S)), high - low)
    at_Q = np.arange(len(sequence_Q)) - np.repeat(np.cumsum(high - low) - high, high - low)
    return sequence_Q, targets[at_Q] - 1, targets[at_Q]


def _ahead(acts: OldestFirst, targets: Ints, last_S: Ints) -> tuple[Ints, Ints]:
    """The range of targets that follow each sequence."""
    end_S = acts.offsets[acts.owner[last_S] + 1]
    return np.searchsorted(targets, last_S, side="right"), np.searchsorted(targets, end_S)


def _some_of(
    targets: Ints, low: Ints, high: Ints, config: SamplingConfig, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """At most `rows` targets of each range, without repetition."""
    sequence_N = np.repeat(np.arange(len(low)), high - low)
    at_N = np.arange(len(sequence_N)) - np.repeat(np.cumsum(high - low) - high, high - low)
    chosen = _at_most(sequence_N, config.rows, random)
    return sequence_N[chosen], targets[at_N[chosen]]


def _dense(
    acts: OldestFirst,
    targets: Ints,
    ends: tuple[Ints, Ints],
    config: SamplingConfig,
    random: np.random.Generator,
) -> tuple[Ints, Ints, Ints]:
    """Random rows of every sequence, each with one random target of its window."""
    first_S, last_S = ends
    length_S = last_S - first_S + 1
    sequence_R = np.repeat(np.arange(len(last_S)), length_S)
    row_R = np.arange(len(sequence_R)) - np.repeat(np.cumsum(length_S) - last_S - 1, length_S)
    low, high = (x[sequence_R] for x in _ahead(acts, targets, last_S))
    if config.anchor == "position":
        until_R = acts.ts_A[row_R] + config.window_days * DAY_US
        high = np.minimum(
            high, _through(acts, targets, sequence_user=acts.owner[row_R], ts=until_R)
        )
    possible = np.flatnonzero(high > low)
    chosen = possible[_at_most(sequence_R[possible], config.rows, random)]
    drawn = low[chosen] + _below((high - low)[chosen], random)
    return sequence_R[chosen], row_R[chosen], targets[drawn]


def _through(acts: OldestFirst, targets: Ints, *, sequence_user: Ints, ts: Ints) -> Ints:
    """Behind the last target of each user that is not later than a time."""
    if not len(targets):
        return np.zeros(len(ts), np.int64)
    # Seconds since the first one: users and times fit into one number.
    begin = acts.ts_A[targets].min()
    span = acts.ts_A[targets].max() - begin + 2
    key_T = acts.owner[targets] * span + (acts.ts_A[targets] - begin)
    wanted = sequence_user * span + np.clip(ts - begin, -1, span - 1)
    behind: Ints = np.searchsorted(key_T, wanted, side="right")
    return behind


def _at_most(group_N: Ints, most: int, random: np.random.Generator) -> Ints:
    """At most so many elements of each group, drawn without repetition; groups ascend."""
    order = np.lexsort((random.random(len(group_N)), group_N))
    _, first, count = np.unique(group_N, return_index=True, return_counts=True)
    place = np.arange(len(group_N)) - np.repeat(first, count)
    return np.sort(order[place < most])


def _below(count: Ints, random: np.random.Generator) -> Ints:
    """A number from 0 to count - 1 for each."""
    drawn: Ints = (random.random(len(count)) * count).astype(np.int64)
    return drawn


def _lengths(acts: OldestFirst) -> Ints:
    return np.diff(acts.offsets)


def _per_user(acts: OldestFirst, users: Ints, value: Ints, *, default: int) -> Ints:
    found = np.full(len(acts.timelines), default, np.int64)
    found[users] = value
    return found


def _counted(flag_A: Bools, start: Ints, end: Ints) -> Ints:
    """How many flags are set in each range."""
    total = np.concatenate([[0], np.cumsum(flag_A)])
    counted: Ints = total[end] - total[start]
    return counted
