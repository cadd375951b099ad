"""Sizes of the unified ranker. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

from models.nn.config import ExpertsConfig, SequenceConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryConfig:
    """The longest sequence of a user, encoded once per user and asked by every candidate.

    Attributes:
        max_len: newest elements that are read; 0 leaves the sequence to the short encoder.
        width: H; the source has 128.
        latest: newest elements kept verbatim beside the summary.
        candidate: whether each row's candidate attends to the elements.
        projection: width that the summary is projected to before it meets anything else; 0 leaves
            it (1 + latest) H wide. The source has 256.
        cross_layers, cross_rank: of the crosses before that projection.
    """

    max_len: int = 256
    width: int = 32
    num_layers: int = 2
    num_heads: int = 2
    latest: int = 10
    candidate: bool = True
    projection: int = 64
    cross_layers: int = 2
    cross_rank: int = 16

    def __post_init__(self) -> None:
        for name in ("max_len", "projection", "cross_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected >= 0, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeConfig:
    """What belongs to one surface.

    Attributes:
        per_surface: a tree for each surface; else one for all, which reads the surface as a plain
            feature.
        own: whether the features that only one surface fills join its tree late.
        cross_layers: crosses in a tree, before its towers; 0 for none.
        hidden: widths of each task's tower.
    """

    per_surface: bool = True
    own: bool = True
    cross_layers: int = 1
    hidden: tuple[int, ...] = (32,)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnifiedConfig:
    """A trunk that all surfaces share, and a tree for each of them.

    One expert is a shared bottom; several are mixed by a gate for each surface and task.

    Attributes:
        categorical_dim: width of categorical tables.
        sequence, sequence_dim: of the sequences that are not the longest, and what is left of them.
        projection: width of the vectors from pools; 0 leaves them as wide as they are.
        weights: how much a surface counts: `root` weighs its rows by 1 / sqrt(its rows), so that
            a large one does not drown a small one; `even` weighs all rows the same.
        distillation: weight of the loss against the ranker before, where one begins anew beside
            it; never on a further day, which overfits.
        max_users: users of one request, at most.
        programs: whether every surface is also exported as a program that needs none of this code.
    """

    categorical_dim: int = 8
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    sequence_dim: int = 32
    projection: int = 0
    history: HistoryConfig = field(default_factory=HistoryConfig)
    experts: ExpertsConfig = field(
        default_factory=lambda: ExpertsConfig(
            num_experts=6, gate="per_task", cross_layers=2, cross_rank=32, hidden=(64, 32)
        )
    )
    tree: TreeConfig = field(default_factory=TreeConfig)
    weights: Literal["root", "even"] = "root"
    distillation: float = 0.0
    max_users: int = 4096
    programs: bool = True

    def __post_init__(self) -> None:
        if self.distillation < 0:
            raise ValueError(f"distillation: expected >= 0, found {self.distillation}")
        if self.max_users < 1:
            raise ValueError(f"max_users: expected >= 1, found {self.max_users}")
