"""Which rows predict which actions: the rules of every objective, on timelines with many ties."""

import numpy as np
import pytest

from feature_store.contracts.sequences import SamplingConfig
from feature_store.reading.pairs import DAY_US, OldestFirst, Pairs, sample
from tests.model_fixtures.sequences import timelines

ACTS = timelines()
MAX_LEN, DAY, WINDOW = 12, 38, 5
TARGETS = (
    (ACTS.timelines.action_A >= 2) & (ACTS.ts_A >= DAY * DAY_US) & (ACTS.ts_A < (DAY + 1) * DAY_US)
)
OBJECTIVES = ("next_action", "sasrec", "all_action", "dense_all_action")


def drawn(seed: int = 1, acts: OldestFirst = ACTS, target_A=TARGETS, **config) -> Pairs:
    config = SamplingConfig(**({"window_days": WINDOW, "rows": 5} | config))
    return sample(acts, target_A, config, max_len=MAX_LEN, random=np.random.default_rng(seed))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pairs_are_of_one_user_their_rows_in_the_sequence_and_older_than_their_targets(objective):
    pairs = drawn(objective=objective)
    assert len(pairs.row_Q) > 20
    assert TARGETS[pairs.target_Q].all(), "positives of the day alone"
    user_Q = pairs.user_S[pairs.sequence_Q]
    assert (ACTS.owner[pairs.target_Q] == user_Q).all()
    assert (ACTS.owner[pairs.first_S] == pairs.user_S).all()
    first, last = pairs.first_S[pairs.sequence_Q], pairs.last_S[pairs.sequence_Q]
    assert ((first <= pairs.row_Q) & (pairs.row_Q <= last)).all()
    assert (pairs.row_Q < pairs.target_Q).all()
    assert (last - first < MAX_LEN).all()
    assert len(np.unique(pairs.user_S)) == len(pairs.user_S), "one sequence of a user"


@pytest.mark.parametrize("objective", ["all_action", "dense_all_action"])
def test_targets_lie_behind_the_sequence_and_within_the_window(objective):
    pairs = drawn(objective=objective, rows=2)
    end_Q = ACTS.ts_A[pairs.last_S[pairs.sequence_Q]]
    target_Q = ACTS.ts_A[pairs.target_Q]
    assert (target_Q > end_Q).all()
    assert (target_Q <= end_Q + WINDOW * DAY_US).all()
    assert np.bincount(pairs.sequence_Q).max() == 2
    keys = np.stack([pairs.sequence_Q, pairs.target_Q if objective[0] == "a" else pairs.row_Q])
    assert len(np.unique(keys, axis=1).T) == len(pairs.row_Q), "drawn without repetition"
    if objective == "all_action":
        assert (pairs.row_Q == pairs.last_S[pairs.sequence_Q]).all()


def test_a_window_anchored_at_its_row_reaches_no_further():
    at_end = drawn(objective="dense_all_action", rows=12)
    at_row = drawn(objective="dense_all_action", rows=12, anchor="position")

    def reach(pairs: Pairs) -> np.ndarray:
        return ACTS.ts_A[pairs.target_Q] - ACTS.ts_A[pairs.row_Q]

    assert reach(at_row).max() <= WINDOW * DAY_US < reach(at_end).max()
    assert len(at_row.row_Q) < len(at_end.row_Q)


def test_next_objectives_predict_the_next_action():
    for objective in ("next_action", "sasrec"):
        pairs = drawn(objective=objective)
        assert (pairs.target_Q == pairs.row_Q + 1).all()
    every = drawn(objective="sasrec")
    rows = [set(range(f, x + 1)) for f, x in zip(every.first_S, every.last_S, strict=True)]
    expected = sum(TARGETS[[r + 1 for r in row]].sum() for row in rows)
    assert len(every.row_Q) == expected, "every row whose next action is a target"


def test_the_newest_row_weighs_as_much_as_the_others_together():
    pairs = drawn(objective="sasrec")
    newest = pairs.row_Q == pairs.last_S[pairs.sequence_Q]
    others = np.bincount(pairs.sequence_Q[~newest], minlength=len(pairs.last_S))
    for sequence in np.unique(pairs.sequence_Q):
        mine = pairs.sequence_Q == sequence
        assert pairs.weight_Q[mine & newest].sum() == max(others[sequence], 1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_seed_decides_and_nobody_is_nobody(objective):
    one, same, other = (
        drawn(objective=objective),
        drawn(objective=objective),
        drawn(2, objective=objective),
    )
    assert (one.target_Q.tolist(), one.row_Q.tolist()) == (
        same.target_Q.tolist(),
        same.row_Q.tolist(),
    )
    if objective != "sasrec":
        assert one.target_Q.tolist() != other.target_Q.tolist() or len(one.row_Q) != len(
            other.row_Q
        )
    nothing = drawn(objective=objective, target_A=np.zeros_like(TARGETS))
    assert len(nothing.user_S) == len(nothing.row_Q) == 0
    alone = timelines(40, users=40, days=1)
    once = alone.take(np.flatnonzero(np.diff(alone.offsets) == 1))
    pairs = drawn(acts=once, target_A=np.ones(len(once.ts_A), bool), objective=objective)
    assert len(pairs.user_S) == 0, "one action: nothing comes before it"


def test_ten_thousand_actions_in_one_second_are_one_moment():
    acts = timelines(10_000, users=1, days=1)
    burst = OldestFirst(timelines=acts.timelines, offsets=acts.offsets, ts_A=acts.ts_A * 0)
    pairs = drawn(acts=burst, target_A=np.ones(10_000, bool))
    assert len(pairs.user_S) == 0, "nothing is after the moment that the sequence ends with"
