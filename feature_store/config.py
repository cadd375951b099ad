"""What the feature store is told: layout, aggregation, index and publishing, as frozen values."""

from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.datasets import WINDOWS


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutConfig:
    """How embedding tables are laid out. Fixed when a table is created; `derm rebucket` changes it.

    Attributes:
        user_buckets, pin_buckets: files per day of the user and Pin tables.
    """

    user_buckets: int = 8
    pin_buckets: int = 8

    def buckets(self, entity: Literal["user", "pin"]) -> int:
        """Buckets of an entity type's tables."""
        return self.user_buckets if entity == "user" else self.pin_buckets


@dataclass(frozen=True, kw_only=True, slots=True)
class CountingConfig:
    """How counts become features.

    Attributes:
        smoothing: impressions that everybody's rate weighs in the rate of one user or Pin.
    """

    smoothing: float = 50.0

    def __post_init__(self) -> None:
        if self.smoothing <= 0:
            raise ValueError(f"smoothing: expected > 0, found {self.smoothing}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AggregationConfig:
    """How daily embeddings become the pool (Source: DERM, appendix C).

    Attributes:
        heuristic: `acc` keeps the latest daily; `ma` is the moving average
            w * pool + (1 - w) * daily; `ap` averages the two most recent available dailies.
        w: weight of the past in `ma`.
        inactive_days: an entity is dropped after this many days without an event.
    """

    heuristic: Literal["acc", "ma", "ap"] = "ma"
    w: float = 0.8
    inactive_days: int = 90

    def __post_init__(self) -> None:
        if not 0.0 <= self.w < 1.0:
            raise ValueError(f"w: expected 0 <= w < 1, found {self.w}")
        if self.inactive_days < 1:
            raise ValueError(f"inactive_days: expected >= 1, found {self.inactive_days}")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """The Pin index: an HNSW graph over distinct normalised vectors, inner product.

    Attributes:
        links: neighbours per Pin and level (twice as many on the lowest). 16 cost 0.64 of the bytes
            of float32 vectors; 32 with a less careful construction cost 0.77 and search slower.
        ef_construction: candidates among which links are chosen. At 48 clusters fall apart, more
            than 64 is slower to build and finds no more (docs/publishing.md).
        recall_at_10: lowest recall against exact search. `ef_search` is raised up to `ef_max`; a
            new graph that fails is built once more, with twice the links and four times the
            `ef_construction`.
        exact_below: with fewer distinct vectors, where no graph reaches the recall, every search
            compares all of them; 0 fails instead.
        rebuild_days: a warm-started graph is rebuilt at least this often.
    """

    storage: Literal["float16", "float32", "int8"] = "float16"
    links: int = 16
    ef_construction: int = 64
    ef_search: int = 64
    ef_max: int = 512
    recall_at_10: float = 0.95
    check_queries: int = 200
    rebuild_days: int = 7
    exact_below: int = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishingConfig:
    """Users in the online store.

    Attributes:
        dtype: of the published vectors.
        batch: keys per MSET; 256 keeps other clients' latency low.
        expire_days: expiry after the last activity; 0 writes no expiry (twice as fast).
        bytes_per_s: bandwidth limit of a publish; 0 is none.
    """

    dtype: Literal["float16", "float32"] = "float16"
    batch: int = 256
    expire_days: int = 0
    bytes_per_s: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionConfig:
    """How long partitions are kept, counted back from the newest day.

    Attributes:
        daily_pools: newest days whose pool is kept (and snapshot, and graph, where there is one);
            then those of each Sunday,
        weekly_pools: for so many weeks more.
        raw_days, daily_days: days of raw and of daily embeddings.
        counts_days: days of counts; those of 90 days back leave a window, the rest is how far back
            a repair may begin.
        releases: newest releases whose pools are kept whatever their age.
        orphan_hours: files that no table refers to are removed when they are older; a step that
            runs longer than this would lose what it has staged.
    """

    daily_pools: int = 14
    weekly_pools: int = 13
    raw_days: int = 7
    daily_days: int = 14
    counts_days: int = 121
    releases: int = 3
    orphan_hours: int = 48

    def __post_init__(self) -> None:
        if self.counts_days <= WINDOWS[-1]:
            raise ValueError(f"counts_days: expected > {WINDOWS[-1]}, found {self.counts_days}")
        for name in ("daily_pools", "raw_days", "daily_days", "orphan_hours"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
