"""A user's interests: clusters of Pins, the medoid of each, and how much it weighs.

Shapes: N actions, D width of the content, C clusters.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.pinnersage.ward import Floats, Ints, clusters, ward


@dataclass(frozen=True, kw_only=True, slots=True)
class Interests:
    """The heaviest first.

    Attributes:
        medoid_C: the action that stands for each cluster.
        importance_C: how often and how lately it was visited.
        cluster_N: of each action.
    """

    medoid_C: Ints
    importance_C: Floats
    cluster_N: Ints


def interests(
    points_ND: npt.NDArray, age_days_N: npt.NDArray, *, height: float, decay: float = 0.01
) -> Interests:
    """Cluster what a user acted on, by Ward's method cut at a height.

    A medoid has the smallest sum of squared distances to its cluster, the first of those that tie.
    Importance is the sum of exp(- decay * age) over a cluster.

    Source: PinnerSage (arXiv 2007.03634), section 4.
    Deviations: ages are in days, which the publication leaves open.
    """
    cluster_N = clusters(ward(points_ND), len(points_ND), height)
    count = int(cluster_N.max(initial=-1)) + 1
    weight_N: Floats = np.exp(-decay * age_days_N)
    importance_C = np.bincount(cluster_N, weight_N, minlength=count).astype(np.float64)
    medoid_C = np.empty(count, np.int64)
    for cluster in range(count):
        mine = np.flatnonzero(cluster_N == cluster)
        points = points_ND[mine].astype(np.float64)
        # sum_j |x_i - x_j|^2 = n |x_i|^2 - 2 x_i . sum_j x_j, and what is the same for all i.
        cost = len(mine) * (points**2).sum(axis=1) - 2 * points @ points.sum(axis=0)
        # Sums of floats: those that differ in the last digits tie.
        medoid_C[cluster] = mine[np.flatnonzero(cost <= cost.min() + 1e-9)[0]]
    order = np.argsort(-importance_C, kind="stable")
    renamed = np.empty(count, np.int64)
    renamed[order] = np.arange(count)
    return Interests(
        medoid_C=medoid_C[order],
        importance_C=importance_C[order],
        cluster_N=renamed[cluster_N],
    )
