"""What PinnerFormer is made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1

Objective = Literal["next_action", "sasrec", "all_action", "dense_all_action"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which rows of a sequence predict which actions.

    Attributes:
        objective: `next_action`, the newest row predicts the next action; `sasrec`, every row does;
            `all_action`, the newest row predicts what follows within the window;
            `dense_all_action`, random rows each predict one action of the window.
        window_days: K, how far ahead targets lie.
        anchor: where the window of `dense_all_action` begins: at the end of the sequence, or at the
            row that predicts.
        rows: of a sequence that predict, and targets of `all_action`, at most.
        ignored: actions that are not part of a sequence, separated by commas.
        positives: actions that are targets, separated by commas; empty: all but those ignored and
            the weakest one that a data set declares.
    """

    objective: Objective = "dense_all_action"
    window_days: int = 14
    anchor: Literal["sequence_end", "position"] = "sequence_end"
    rows: int = 32
    ignored: str = "impression"
    positives: str = ""

    def __post_init__(self) -> None:
        for name in ("window_days", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")


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


def names_in(text: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


DEFAULT = PinnerFormerConfig()
READS = "timelines"
