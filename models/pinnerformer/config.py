"""What PinnerFormer is made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

from feature_store.contracts.sequences import SamplingConfig, names_in

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NegativesConfig:
    """What the positive is compared with.

    Attributes:
        pool: targets of the batch, random Pins of the day, or both in one pool.
        max_in_batch: targets of all ranks in the pool, at most.
        random: Pins that every rank draws with a batch.
        correct: subtract log Q from logits (sampling probability correction).
        q_mode: of a pool of both: `per_source`, each entry by the counts of its own source;
            `mixture`, by both sources together.
        positive_q: how the positive is corrected: conditional on its user, like a negative, or not.
        temperature: initial; trained, never below 0.01.
        sketch_depth, sketch_width: of the count-min sketches behind Q.
        sketch_keep: what a count of the days before weighs at the start of a new one.
    """

    pool: Literal["in_batch", "random", "mixed"] = "mixed"
    max_in_batch: int = 1024
    random: int = 256
    correct: bool = True
    q_mode: Literal["per_source", "mixture"] = "per_source"
    positive_q: Literal["conditional", "marginal", "none"] = "conditional"
    temperature: float = 0.07
    sketch_depth: int = 2
    sketch_width: int = 2**14
    sketch_keep: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnerFormerConfig:
    """The sequence model and the Pin model.

    Attributes:
        embedding_dim: D, of users and Pins.
        dim: H, inside the transformer.
        max_len: M, newest actions of a sequence that are read.
        max_timeline: newest actions of a user from which sequences and targets are drawn.
        content: the embedding feature of Pins that stands for them; empty: the first one declared.
        pin_hidden: width of the Pin model's hidden layer.
        without: parts of an action that are left out, separated by commas: content, action,
            surface, duration, time, place.
    """

    embedding_dim: int = 32
    dim: int = 64
    num_layers: int = 2
    num_heads: int = 4
    max_len: int = 32
    max_timeline: int = 4096
    dropout: float = 0.0
    content: str = ""
    pin_hidden: int = 128
    without: str = ""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.max_len <= self.max_timeline:
            raise ValueError(
                f"max_len: expected 1 .. max_timeline ({self.max_timeline}), found {self.max_len}"
            )
        if unknown := set(names_in(self.without)) - set(PARTS):
            raise ValueError(f"without: expected some of {PARTS}, found {sorted(unknown)}")


PARTS = ("content", "action", "surface", "duration", "time", "place")


DEFAULT = PinnerFormerConfig()
READS = "timelines"
