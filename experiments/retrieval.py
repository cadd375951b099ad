"""How good retrieved Pins are: recall against an index, diversity within users and over them.

Shapes: P positives, N Pins of the index, U users, K retrieved Pins, E embedding width.
"""

import numpy as np
import numpy.typing as npt

_BLOCK = 1024

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def recall_of_positives(
    user_PE: npt.NDArray, positive_PE: npt.NDArray, index_NE: npt.NDArray, top: int
) -> npt.NDArray[np.bool_]:
    """Whether fewer than `top` Pins of the index are as close to the user as each positive.

    Vectors have norm 1, so the closest has the largest inner product. Ties count against us.

    Source: PinnerFormer (arXiv 2205.04507), section 4.1.
    """
    found = np.empty(len(user_PE), bool)
    for start in range(0, len(user_PE), _BLOCK):
        part = slice(start, start + _BLOCK)
        own_P = (user_PE[part] * positive_PE[part]).sum(axis=1)
        closer = (user_PE[part] @ index_NE.T >= own_P[:, None]).sum(axis=1)
        found[part] = closer < top
    return found


def mean_over_users(value_P: npt.NDArray, user_P: Ints) -> float:
    """The mean over users of the mean over their positives."""
    _, at_P = np.unique(user_P, return_inverse=True)
    return float((np.bincount(at_P, value_P) / np.bincount(at_P)).mean())


def interest_entropy(interest_UK: Ints) -> float:
    """The mean entropy, in nats, of the interests of what each user is shown.

    Source: PinnerFormer (arXiv 2205.04507), section 4.1.
    """
    users, shown = interest_UK.shape
    row_M = np.repeat(np.arange(users), shown)
    pairs, count = np.unique(np.stack([row_M, interest_UK.ravel()]), axis=1, return_counts=True)
    share = count / shown
    return float(np.bincount(pairs[0], -share * np.log(share), minlength=users).mean())


def coverage(retrieved_UK: Ints, index_size: int, share: float = 0.9) -> float:
    """The smallest part of the index that holds a share of all that is retrieved.

    Source: PinnerFormer (arXiv 2205.04507), section 4.1 (P90 coverage at 10).
    """
    counts = np.sort(np.unique(retrieved_UK, return_counts=True)[1])[::-1]
    # In whole numbers: a sum that is nine tenths exactly is enough.
    reached = np.searchsorted(np.cumsum(counts), share * counts.sum() - 1e-9) + 1
    return float(min(reached, len(counts)) / index_size)
