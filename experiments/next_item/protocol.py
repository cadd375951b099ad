"""The public protocol: leave one out, the whole catalogue, ties against us.

Shapes: U users, T users that are tested, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from experiments.next_item.sequences import Ids, Sequences
from feature_store.contracts.errors import ContractViolation

TOP_K = 10
# Scores [t, I] of the items that may follow each of some sequences.
Scorer = Callable[[Sequences], npt.NDArray[np.float32]]

_USERS = 256
_VALIDATED = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Users, what they did before, and the item that is held out.

    Attributes:
        user_T: their positions among all users.
        before: of these users.
        target_T: the held-out items.
    """

    user_T: Ids
    before: Sequences
    target_T: Ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """What is learned, what chooses, what is reported."""

    train: Sequences
    validation: Held
    test: Held


def split(sequences: Sequences, how: Literal["all", "some"], *, seed: int = 0) -> Split:
    """Hold out the last item of every user for the test, and the one before it.

    Args:
        how: what chooses: `all`, the last item but one of every user; `some`, as gSASRec's
            publication has it, an item more of 512 users, and the last item but one of nobody.
        seed: draws those users.

    Raises:
        ContractViolation: what is held out was seen in training.
    """
    lengths, everybody = sequences.lengths, np.arange(len(sequences))
    learned = lengths - 2
    chosen = everybody
    if how == "some":
        random = np.random.default_rng(seed)
        chosen = np.sort(random.permutation(everybody)[: min(_VALIDATED, len(everybody))])
        learned[chosen] -= 1
    found = Split(
        train=sequences.first(learned),
        validation=_held(sequences, chosen, learned[chosen]),
        test=_held(sequences, everybody, lengths - 1),
    )
    check_apart(found)
    return found


def check_apart(found: Split) -> None:
    """Refuse a split in which a held-out (user, item) was seen before, where users do not repeat.

    Raises:
        ContractViolation: it was.
    """
    for name, held in (("validation", found.validation), ("test", found.test)):
        pair_T = held.user_T * found.train.num_items + held.target_T
        if seen := int(np.isin(pair_T, found.train.pairs()).sum()):
            raise ContractViolation(
                f"what the {name} holds out was seen in training",
                expected="no (user, item) on both sides",
                found=f"{seen} of {len(pair_T)} held-out actions",
                hint="drop the repeats of a user before splitting",
            )


def ranks(scorer: Scorer, held: Held) -> Ids:
    """How many items score at least as high as each held-out one, of those not seen before it.

    Ties count against the model: one that gives every item the same score finds nothing.
    """
    found = np.empty(len(held.user_T), np.int64)
    for start in range(0, len(found), _USERS):
        at = np.arange(start, min(start + _USERS, len(found)))
        before = held.before.take(at)
        score_TI = scorer(before).astype(np.float32)
        target_T = held.target_T[at]
        own_T = score_TI[np.arange(len(at)), target_T]
        seen = np.repeat(np.arange(len(at)), before.lengths)
        score_TI[seen, before.item_A] = -np.inf
        score_TI[np.arange(len(at)), target_T] = -np.inf
        found[at] = (score_TI >= own_T[:, None]).sum(axis=1)
        # What is no number is no answer.
        found[at[~np.isfinite(own_T)]] = score_TI.shape[1]
    return found


def quality(rank_T: Ids) -> dict[str, npt.NDArray[np.float64]]:
    """NDCG and hits among the first ten, of each user."""
    hit_T = rank_T < TOP_K
    gain_T = np.where(hit_T, 1 / np.log2(np.maximum(rank_T, 0) + 2.0), 0.0)
    return {f"ndcg_at_{TOP_K}": gain_T, f"hit_at_{TOP_K}": hit_T.astype(np.float64)}


def _held(sequences: Sequences, users: Ids, before: Ids) -> Held:
    counts = np.zeros(len(sequences), np.int64)
    counts[users] = before
    return Held(
        user_T=users,
        before=sequences.first(counts).take(users),
        target_T=sequences.item_A[sequences.offsets[users] + before],
    )
