"""How a model is trained and applied. Imports no torch: recipes are read without it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """The training loop.

    Attributes:
        window_days: days of a from-scratch training; every later day is trained on once.
        batch_rows: rows of a step on one rank.
        learning_rate, incremental_learning_rate: of AdamW, from scratch and for a new day.
        weight_decay: on the weights of linear layers only.
        max_grad_norm: gradients are clipped to this norm.
        together: rows of a user that a permutation leaves side by side, at most; more than 1 is
            faster, since a batch then has fewer users to embed, and learns from fewer users a step.
        shuffle_rows: rows that are read, permuted and cut into batches together; it bounds memory.
        checkpoint_steps: steps of a pass between resumable checkpoints, beside the one after every
            pass; 0 writes none.
        health_rows: entities sampled for effective rank and norms.
        precision: bfloat16 runs the towers under autocast; losses stay float32.
        tf32, compile: matter on a GPU only.
        prefetch_batches: batches read ahead by a thread; pinned where there is a GPU.
    """

    window_days: int = 30
    batch_rows: int = 256
    learning_rate: float = 1e-3
    incremental_learning_rate: float = 3e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    together: int = 1
    shuffle_rows: int = 65_536
    checkpoint_steps: int = 1000
    health_rows: int = 2048
    precision: Literal["float32", "bfloat16"] = "float32"
    tf32: bool = True
    compile: bool = False
    prefetch_batches: int = 2

    def __post_init__(self) -> None:
        for name in ("window_days", "batch_rows", "together", "shuffle_rows", "health_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """Which rows are embedded.

    Attributes:
        rows: `all` writes one row per event; `last` only the last one per entity and day.
        batch_rows: entities of one forward pass.
    """

    rows: Literal["all", "last"] = "all"
    batch_rows: int = 1024
