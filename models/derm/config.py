"""What the upstream model is made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

from models.nn.config import DhenConfig, SequenceConfig, TokensConfig

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Supervised and self-supervised losses.

    Attributes:
        ssl_weight: lambda, the weight of the sampled softmax between the towers; 0 turns it off.
        max_negatives: Pins of the batch in the pool, at most.
        random_negatives: Pins of the day, drawn uniformly, that every rank adds to the pool; 0
            leaves the batch's Pins alone.
        temperature: initial; trained, never below 0.01.
        sketch_depth, sketch_width: of the count-min sketch that estimates how often a Pin occurs.
        sketch_keep: what a count of the days before weighs at the start of a new one; 1 never
            forgets, and holds Pins that are new for rare.
        q_estimator: how often a Pin occurs in the pool. `linear` keeps duplicates and expects a
            number; `exact` lets a Pin count once, and takes the probability that it occurs.
        delayed: what is done about labels that arrive late, after their impression was counted as
            a negative (`DelayedLabels`).
        weight_cap: a task weighs min(cap, 1 / base rate).
    """

    ssl_weight: float = 0.1
    max_negatives: int = 1024
    random_negatives: int = 0
    temperature: float = 0.07
    sketch_depth: int = 2
    sketch_width: int = 2**14
    sketch_keep: float = 0.5
    q_estimator: Literal["linear", "exact"] = "linear"
    delayed: Literal["none", "weighted", "calibrated", "taken_back"] = "taken_back"
    weight_cap: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DermConfig:
    """The three-tower model.

    The embedding is as wide as a tower's output: `num_tokens * token_dim`.

    Attributes:
        tower: of all three towers.
        categorical_dim: width of categorical tables.
        overtower_input: whether the overall tower sees the normalised embeddings, which are what
            others will see, or the raw tokens.
        dot_product: also show it the inner product of the two embeddings.
        head_hidden: hidden widths of each task's head.
    """

    tower: DhenConfig = field(default_factory=DhenConfig)
    categorical_dim: int = 16
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    overtower_input: Literal["normalized", "raw"] = "normalized"
    dot_product: bool = True
    head_hidden: tuple[int, ...] = (32,)
    loss: LossConfig = field(default_factory=LossConfig)

    @property
    def tokens(self) -> TokensConfig:
        """How features become tokens."""
        return TokensConfig(
            token_dim=self.tower.token_dim,
            categorical_dim=self.categorical_dim,
            sequence=self.sequence,
        )

    @property
    def embedding_dim(self) -> int:
        """Width of the user and Pin embeddings."""
        return self.tower.num_tokens * self.tower.token_dim


DEFAULT = DermConfig()
READS = "rows"
