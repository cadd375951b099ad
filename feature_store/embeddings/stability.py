"""How a pool has moved since yesterday, and whether it is healthy: numbers, no decisions.

Works bucket by bucket; sums travel, vectors do not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.manifests import Metrics
from feature_store.embeddings.aggregate import Vectors, cosine
from feature_store.embeddings.noise import mean_error
from feature_store.lake.schemas import unpack


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketStats:
    """Sums over one bucket of today's pool.

    Attributes:
        pool, before: rows of today's and of yesterday's pool.
        shared, shared_updated: entities of both pools; those among them updated today.
        cosine, cosine_updated: sums of today's against yesterday's vector over them.
        squares, squares_updated: the same of the squares of those cosines.
        new: entities that today's pool has and yesterday's had not.
        norm: sum of the norms.
        sample: some vectors [rows, dim], evenly spaced by id.
    """

    pool: int
    before: int
    shared: int
    shared_updated: int
    cosine: float
    cosine_updated: float
    squares: float
    squares_updated: float
    new: int
    norm: float
    sample: Vectors


def measure_bucket(
    pool: pa.Table, before: pa.Table, *, ds: str, dim: int, sample: int
) -> BucketStats:
    """Compare one bucket of today's pool with the same bucket of yesterday's."""
    vectors = unpack(pool["embedding"], dim)
    match = pc.index_in(
        pool["entity_id"].combine_chunks(), value_set=before["entity_id"].combine_chunks()
    )
    positions = match.fill_null(-1).to_numpy(zero_copy_only=False)
    shared = np.flatnonzero(positions >= 0)
    updated = _mask(pc.equal(pool["last_daily"], ds))
    old = unpack(before["embedding"], dim)[positions[shared]]
    similarity = cosine(vectors[shared], old).astype(np.float64)
    spaced = np.linspace(0, max(len(pool) - 1, 0), min(sample, len(pool))).astype(np.int64)
    return BucketStats(
        pool=len(pool),
        before=len(before),
        shared=len(shared),
        shared_updated=int(np.count_nonzero(updated[shared])),
        cosine=float(similarity.sum()),
        cosine_updated=float(similarity[updated[shared]].sum()),
        squares=float((similarity**2).sum()),
        squares_updated=float((similarity[updated[shared]] ** 2).sum()),
        new=len(pool) - len(shared),
        norm=float(np.linalg.norm(vectors, axis=1).sum(dtype=np.float64)),
        sample=vectors[spaced],
    )


def summarise(buckets: Sequence[BucketStats]) -> Metrics:
    """The pool's numbers; None where there is nothing to compare.

    `updated`, `new` and `carried` are shares of today's pool, `pruned` of yesterday's. `se` is the
    standard error of a mean over entities.
    """
    pool, before = sum(b.pool for b in buckets), sum(b.before for b in buckets)
    shared, new = sum(b.shared for b in buckets), sum(b.new for b in buckets)
    updated = sum(b.shared_updated for b in buckets)
    all_shared = [(b.cosine, b.squares) for b in buckets]
    all_updated = [(b.cosine_updated, b.squares_updated) for b in buckets]
    return {
        "pool": pool,
        "pool_ratio": _ratio(pool, before),
        "updated": _ratio(updated, pool),
        "new": _ratio(new, pool),
        "carried": _ratio(shared - updated, pool),
        "pruned": _ratio(before - shared, before),
        **_mean("cosine", shared, all_shared),
        **_mean("cosine_updated", updated, all_updated),
        "norm": _ratio(sum(b.norm for b in buckets), pool),
    }


def pooled_effective_rank(samples: Sequence[Vectors]) -> float | None:
    """Exponential of the entropy of the normalised singular values; None without vectors.

    1 when all vectors are collinear, `dim` when they fill the space evenly.
    """
    vectors = np.concatenate(samples).astype(np.float64)
    if len(vectors) == 0:
        return None
    if not np.isfinite(vectors).all():
        return float("nan")
    values = np.sqrt(np.clip(np.linalg.eigvalsh(vectors.T @ vectors), 0.0, None))
    if values.sum() == 0.0:
        return 0.0
    weights = values[values > 0] / values.sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))


def coverage(seen: pa.ChunkedArray, known: Iterable[pa.ChunkedArray]) -> Metrics:
    """Share of the rows, and of the distinct ids, of `seen` that occur in `known`; None of none.

    `se` is the standard error of a share; the rows of one id are known together or not at all.

    Args:
        seen: ids as they occur, one per row.
        known: ids of a store in parts, one part in memory at a time.
    """
    counts = pc.value_counts(seen)
    ids, times = counts.field("values"), counts.field("counts").to_numpy()
    found: npt.NDArray[np.bool_] = np.zeros(len(ids), bool)
    for part in known:
        found |= _mask(pc.is_in(ids, value_set=part.combine_chunks()))
    return {**_share("coverage_rows", found, times), **_share("coverage_entities", found, times**0)}


def _mean(name: str, count: int, sums: Sequence[tuple[float, float]]) -> Metrics:
    """The mean of `count` cosines, from sums of them and of their squares, and its error."""
    if not count:
        return {name: None, f"{name}_se": None}
    mean = sum(total for total, _ in sums) / count
    squares = max(sum(squares for _, squares in sums) - count * mean**2, 0.0)
    return {name: mean, f"{name}_se": mean_error(count, squares, half_range=1.0)}


def _share(name: str, found: npt.NDArray[np.bool_], weights: npt.NDArray[np.int64]) -> Metrics:
    """The share of all weight that was found, and its error: entities are what varies."""
    if not len(found):
        return {name: None, f"{name}_se": None}
    total = float(weights.sum())
    share = float(weights[found].sum()) / total
    squares = float((weights.astype(np.float64) ** 2 * (found - share) ** 2).sum())
    half_range = 0.5 * float(weights.max())
    return {name: share, f"{name}_se": mean_error(total, squares, half_range)}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mask(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)
