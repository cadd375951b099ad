"""Can rows of two kinds be told apart by what is known of them? Without a model.

Every feature becomes columns of codes: a category, or one of some bins of a number. A column tells
as much as the share of positives that its codes had among other rows; a shallow tree does the same
with several columns. TwoKinds are scored only by what was learned from the rows of other users, so
that chance, and users who are always of one kind, tell nothing.

Shapes: N rows, C columns, K codes of a column.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_BINS = 32
_CODES = 256
_SMOOTHING = 10.0
_DEPTH = 3
_MIN_LEAF = 20
_PARTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoKinds:
    """Rows of two kinds.

    Attributes:
        positive: which kind each row [N] is of.
        weight: of each row [N].
        fold: part of the users [N], 0 .. 3; rows of an even part are scored by what odd ones teach,
            and the other way round.
    """

    positive: Flags
    weight: Floats
    fold: Codes

    @property
    def decidable(self) -> bool:
        """Whether both halves have rows of both kinds."""
        return len(np.unique(2 * self.half + self.positive)) == 4

    @property
    def half(self) -> Codes:
        """Which half [N] a row is scored with."""
        return self.fold % 2

    def take(self, rows: npt.NDArray) -> "TwoKinds":
        """The chosen rows."""
        return TwoKinds(
            positive=self.positive[rows], weight=self.weight[rows], fold=self.fold[rows]
        )


def bins_of(values: npt.NDArray) -> Codes:
    """The bin [N] of each number, bins of about equal size; 0 where it is missing."""
    values = values.astype(np.float64)
    known = values[~np.isnan(values)]
    middle = np.linspace(0, 1, _BINS + 1)[1:-1]
    edges = np.unique(np.quantile(known, middle)) if len(known) else known
    found = 1 + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 0, found)


def codes_of(values: npt.NDArray) -> Codes:
    """Codes [N] of categories: the frequent ones each its own, all others one together."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return np.minimum(place, _CODES - 1)[codes]


def auc(scores: npt.NDArray, rows: TwoKinds) -> float:
    """The chance that a positive row has the higher score, ties half; NaN without both kinds."""
    _, at = np.unique(scores, return_inverse=True)
    up = np.bincount(at, rows.weight * rows.positive)
    down = np.bincount(at, rows.weight * ~rows.positive)
    below = np.cumsum(down) - down / 2
    both = up.sum() * down.sum()
    return float((up * below).sum() / both) if both else math.nan


def auc_alone(codes: Codes, rows: TwoKinds) -> float:
    """What one column [N] tells; about .5 where it tells nothing, NaN where nobody can say."""
    if not rows.decidable:
        return math.nan
    size = int(codes.max()) + 1
    found = []
    for half in (0, 1):
        taught, scored = rows.half != half, np.flatnonzero(rows.half == half)
        rate = _rates(codes[taught], rows.take(taught), size)
        found.append(auc(rate[codes[scored]], rows.take(scored)))
    return float(np.mean(found))


def auc_of_vectors(vectors: npt.NDArray, rows: TwoKinds) -> float:
    """What a vector [N, D] tells along the line between the means of the two kinds."""
    if not rows.decidable:
        return math.nan
    found = []
    for half in (0, 1):
        taught, scored = rows.half != half, np.flatnonzero(rows.half == half)
        means = [
            np.average(vectors[taught & kind], axis=0, weights=rows.weight[taught & kind])
            for kind in (~rows.positive, rows.positive)
        ]
        found.append(auc(vectors[scored] @ (means[1] - means[0]), rows.take(scored)))
    return float(np.mean(found))


def auc_of_tree(columns: Mapping[str, Codes], rows: TwoKinds) -> tuple[float, tuple[str, ...]]:
    """What a shallow tree tells by all columns, and the columns it used, the telling ones first."""
    if not rows.decidable:
        return math.nan, ()
    found, gains = [], dict[str, float]()
    for half in (0, 1):
        taught, scored = rows.half != half, np.flatnonzero(rows.half == half)
        leaf = _grow(columns, rows, taught, _DEPTH, gains)
        score = np.zeros(len(rows.positive))
        for inside, rate in leaf:
            score[inside] = rate
        found.append(auc(score[scored], rows.take(scored)))
    return float(np.mean(found)), tuple(sorted(gains, key=lambda n: (-gains[n], n)))


def auc_error(positives: int, negatives: int, value: float) -> float:
    """Standard error of an AUC of so many rows (Hanley and McNeil, 1982)."""
    twice_up, twice_down = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value)
    spread += (positives - 1) * (twice_up - value**2) + (negatives - 1) * (twice_down - value**2)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def _grow(
    columns: Mapping[str, Codes], rows: TwoKinds, taught: Flags, depth: int, gains: dict[str, float]
) -> list[tuple[Flags, float]]:
    """Leaves as (rows of the leaf, taught or not [N]; share of positives among the taught)."""
    leaves = [(np.ones(len(taught), bool), 0.5)]
    for _ in range(depth):
        leaves = [new for old in leaves for new in _split(columns, rows, taught, old, gains)]
    return leaves


def _split(
    columns: Mapping[str, Codes],
    rows: TwoKinds,
    taught: Flags,
    leaf: tuple[Flags, float],
    gains: dict[str, float],
) -> list[tuple[Flags, float]]:
    inside = leaf[0]
    mine = rows.take(inside & taught)
    best: tuple[float, str, Flags] = (0.0, "", np.zeros(0, bool))
    for name, codes in columns.items():
        gain, left = _best_split(codes[inside & taught], mine, int(codes.max()) + 1)
        if gain > best[0]:
            best = (gain, name, left)
    gain, name, left = best
    if not name:
        return [leaf]
    gains[name] = gains.get(name, 0.0) + gain
    goes_left = left[columns[name]]
    parts = (inside & goes_left, inside & ~goes_left)
    return [(part, _share(rows.take(part & taught))) for part in parts]


def _best_split(codes: Codes, rows: TwoKinds, size: int) -> tuple[float, Flags]:
    """The largest fall of impurity, and the codes [K] that go left.

    One part of the users says in which order the codes are tried, by their share of positives; the
    others say what each cut is worth, so that a column of many codes has no advantage by chance.

    Source: Breiman, Friedman, Olshen, Stone, 1984: for two kinds, the best split is among these.
    """
    orders, judges = rows.fold < _PARTS // 2, rows.fold >= _PARTS // 2
    order = np.argsort(_rates(codes[orders], rows.take(orders), size), kind="stable")
    codes, rows = codes[judges], rows.take(judges)
    count = np.bincount(codes, minlength=size)[order].cumsum()
    weight = np.bincount(codes, rows.weight, size)[order].cumsum()
    up = np.bincount(codes, rows.weight * rows.positive, size)[order].cumsum()
    whole, hits = weight[-1], up[-1]
    enough = (count >= _MIN_LEAF) & (len(codes) - count >= _MIN_LEAF)
    if not enough.any() or not 0 < hits < whole:
        return 0.0, np.zeros(size, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The first side has a lower share of positives, as it was ordered, or the cut is noise.
        pure = up**2 / weight + (hits - up) ** 2 / (whole - weight) - hits**2 / whole
        pure = np.where(up * whole < hits * weight, pure, 0.0)
    cut = int(np.argmax(np.where(enough, pure, 0.0)))
    left = np.zeros(size, bool)
    left[order[: cut + 1]] = True
    return float(pure[cut]) if enough[cut] else 0.0, left


def _rates(codes: Codes, rows: TwoKinds, size: int) -> Floats:
    """Share of positives [K] of each code, drawn towards that of all."""
    weight = np.bincount(codes, rows.weight, size)
    up = np.bincount(codes, rows.weight * rows.positive, size)
    rates: Floats = (up + _SMOOTHING * _share(rows)) / (weight + _SMOOTHING)
    return rates


def _share(rows: TwoKinds) -> float:
    total = rows.weight.sum()
    return float((rows.weight * rows.positive).sum() / total) if total else 0.5
