"""Sequences of items from a file, refused where their order would tell what is to be foretold.

Shapes: U users, A actions of all of them together.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.errors import ContractViolation, InputError

# Neighbours of one moment whose ids ascend: half of them by chance. Chance moves it by a percent.
_SORTED = 0.9
_MIN_PAIRS = 100

Order = Literal["time", "published", "unknown"]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """What every user did, oldest first.

    Attributes:
        offsets: [U + 1]; the actions of user i are offsets[i] : offsets[i + 1].
        item_A: 0 .. num_items - 1.
        time_A: seconds since the first action of the user; None where none are known.
        order: how the order came about: by times, or as published without times.
    """

    offsets: Ids
    item_A: Ids
    num_items: int
    time_A: npt.NDArray[np.int64] | None
    order: Order

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ids:
        """Actions of each user."""
        return np.diff(self.offsets)

    def first(self, count_U: Ids) -> "Sequences":
        """The oldest actions of every user, so many of each."""
        return self._cut(self.offsets[:-1], count_U)

    def newest(self, most: int) -> "Sequences":
        """The newest actions of every user, at most so many."""
        count_U = np.minimum(self.lengths, most)
        return self._cut(self.offsets[1:] - count_U, count_U)

    def take(self, users: Ids) -> "Sequences":
        """The sequences of chosen users, in that order."""
        return self._cut(self.offsets[users], self.lengths[users])

    def _cut(self, start_U: Ids, count_U: Ids) -> "Sequences":
        offsets = np.concatenate([[0], np.cumsum(count_U)])
        at = np.arange(offsets[-1]) + np.repeat(start_U - offsets[:-1], count_U)
        times = None if self.time_A is None else self.time_A[at]
        return dataclasses.replace(self, offsets=offsets, item_A=self.item_A[at], time_A=times)

    def pairs(self) -> Ids:
        """One number for each (user, item)."""
        user_A = np.repeat(np.arange(len(self)), self.lengths)
        return user_A * self.num_items + self.item_A


def read_sequences(folder: Path, order: Order) -> Sequences:
    """The sequences of `sequences.parquet`: `items` of every user, and `gap_s` where known.

    Args:
        order: `published` vouches for the order of a file without times.

    Raises:
        InputError: there is no such file.
        ContractViolation: its order is unknown, or items of one moment are sorted by their ids; a
            user has fewer than four actions.
    """
    path = folder / "sequences.parquet"
    if not path.is_file():
        raise InputError("there are no sequences", where=str(path), expected="a Parquet file")
    table = pq.read_table(path)
    items = table["items"].combine_chunks()
    _, item_A = np.unique(items.values.to_numpy(), return_inverse=True)
    time_A = _times(table) if "gap_s" in table.column_names else None
    found = Sequences(
        offsets=items.offsets.to_numpy().astype(np.int64),
        item_A=item_A.astype(np.int64),
        num_items=int(item_A.max(initial=-1)) + 1,
        time_A=time_A,
        order=order if time_A is None else "time",
    )
    check_order(found, where=str(path))
    return found


def check_order(sequences: Sequences, *, where: str) -> None:
    """Refuse an order that is unknown, or that gives the next item away.

    A file sorted by (time, item) tells a model that of the items of one moment a larger id comes
    next: it raises NDCG by a fifth without anything learned.

    Raises:
        ContractViolation: it is so; or a user has fewer than four actions.
    """
    if sequences.order == "unknown":
        raise ContractViolation(
            "the order of the actions is not known",
            where=where,
            expected="a column gap_s, or the file's own order vouched for",
            found="neither",
            hint="an order that nobody vouches for may be that of the ids",
        )
    user_A = np.repeat(np.arange(len(sequences)), sequences.lengths)
    tied = user_A[1:] == user_A[:-1]
    if sequences.time_A is not None:
        tied &= sequences.time_A[1:] == sequences.time_A[:-1]
    ascends = (np.diff(sequences.item_A) > 0)[tied]
    share = max(ascends.mean(), 1 - ascends.mean()) if len(ascends) >= _MIN_PAIRS else 0.5
    if share > _SORTED:
        raise ContractViolation(
            "items of one moment are sorted by their ids",
            where=where,
            expected=f"neighbours whose ids ascend: about half, at most {_SORTED:.0%}",
            found=f"{ascends.mean():.0%} of {len(ascends)}",
            hint="keep the order of the source, or permute ties at random",
        )
    if short := int((sequences.lengths < 4).sum()):
        raise ContractViolation(
            "users have too few actions to be split",
            where=where,
            expected=">= 4 each: two to learn from, one to validate, one to test",
            found=f"{short} users with fewer",
        )


def _times(table: pa.Table) -> npt.NDArray[np.int64]:
    gaps = table["gap_s"].combine_chunks()
    total_A = np.cumsum(gaps.values.to_numpy().astype(np.int64))
    starts = gaps.offsets.to_numpy()[:-1]
    time_A: npt.NDArray[np.int64] = total_A - np.repeat(
        total_A[starts], np.diff(gaps.offsets.to_numpy())
    )
    return time_A
