"""Ward's hierarchical clustering by chains of nearest neighbours.

Shapes: N points, D width.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def ward(points_ND: npt.NDArray) -> Floats:
    """The merges [N - 1, 3] of a set of points: two points of what is merged, and the height.

    A height is the square root of twice the rise in squared distance to the centres, as SciPy's. A
    chain goes from cluster to nearest neighbour until two are each other's; these are merged. By
    Ward's distance no merge brings a third cluster closer, so the merges are those of always taking
    the nearest pair, in another order: they are sorted by height. N^2 numbers are held.

    Source: PinnerSage (arXiv 2007.03634), algorithm 1; Lance and Williams 1967.
    Deviations: none.
    """
    count = len(points_ND)
    squared = (points_ND.astype(np.float64) ** 2).sum(axis=1)
    distance = squared[:, None] + squared[None] - 2.0 * (points_ND @ points_ND.T)
    distance = np.maximum(distance.astype(np.float64), 0.0)
    np.fill_diagonal(distance, np.inf)
    size = np.ones(count)
    merges = np.empty((max(count - 1, 0), 3))
    chain: list[int] = []
    alive = np.ones(count, bool)
    for number in range(count - 1):
        if not chain:
            chain = [int(np.flatnonzero(alive)[0])]
        while True:
            row = distance[chain[-1]]
            nearest = int(np.argmin(row))
            # The one it came from wins a tie, or a chain would never end.
            if len(chain) > 1 and row[chain[-2]] <= row[nearest]:
                break
            chain.append(nearest)
        first, second = sorted((chain.pop(), chain.pop()))
        apart = distance[first, second]
        merges[number] = first, second, np.sqrt(apart)
        total = size[first] + size[second] + size
        row = (size[first] + size) * distance[first] + (size[second] + size) * distance[second]
        row = (row - size * apart) / total
        alive[second] = False
        row[~alive] = row[first] = np.inf
        distance[first], distance[:, first] = row, row
        distance[second], distance[:, second] = np.inf, np.inf
        size[first] += size[second]
    return merges[np.argsort(merges[:, 2], kind="stable")]


def clusters(merges: Floats, count: int, height: float) -> Ints:
    """The cluster_N of every point when all merges up to a height are done; named by order."""
    parent = np.arange(count)

    def root(point: int) -> int:
        while parent[point] != point:
            parent[point] = parent[parent[point]]
            point = int(parent[point])
        return point

    for first, second, _ in merges[merges[:, 2] <= height]:
        one, other = sorted((root(int(first)), root(int(second))))
        parent[other] = one
    roots = np.array([root(point) for point in range(count)], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)
