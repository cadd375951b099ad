"""What PinnerFormer is made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field

from feature_store.contracts.sequences import SamplingConfig, names_in
from models.nn.config import NegativesConfig

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1


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
