"""What chance does to a number that a day has measured: bounds know the size of the day.

A bound is meant for a day on which the number is known exactly. On a small one it lies three
standard errors lower, so that a healthy day breaks it about once in 700. Of few values the spread
is hardly known, so one more is always assumed that lies as far off as it can: a number of one user
then says nothing, and one of a thousand what it seems to say.
"""

import math

SIGMAS = 3.0


def mean_error(weight: float, squares: float, half_range: float) -> float:
    """Standard error of a mean.

    Args:
        weight: number of values, or the sum of their weights.
        squares: sum of the squared distances from the mean, each times the square of its weight.
        half_range: how far off a value can be, times the largest weight.
    """
    return math.sqrt(squares + half_range**2) / weight


def share_error(count: int, share: float) -> float:
    """Standard error of a share of `count` independent entities."""
    return mean_error(count, count * share * (1.0 - share), 0.5)


def lowered(bound: float, error: float | None) -> float | None:
    """The bound on a day whose number has this standard error; none where nothing is known."""
    return None if error is None else bound - SIGMAS * error


def rank_bound(bound: float, vectors: int, dim: int) -> float:
    """The lowest effective rank of so many vectors.

    An effective rank is the exponential of an entropy, which cannot exceed that of `vectors` equal
    directions. The bound asks for the same share of what is possible at any size: of one vector
    for 1, which it always has; of `dim` vectors and more for `bound` itself.
    """
    possible = min(vectors, dim)
    if possible <= 1 or dim <= 1:
        return min(bound, 1.0)
    return min(bound, math.pow(bound, math.log(possible) / math.log(dim)))
