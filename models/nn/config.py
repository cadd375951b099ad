"""Sizes of the shared blocks. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

Interaction = Literal["mask", "transformer", "mlp", "linear"]
Ensemble = Literal["concat", "sum", "weighted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DhenConfig:
    """A tower of DHEN layers.

    Attributes:
        token_dim: width of a token.
        num_tokens: tokens every layer returns.
        layers: the modules of each layer.
        ensemble: concat gives each module its share of the tokens, so that `num_tokens` must be a
            multiple of the number of modules; sum and weighted let each module make all of them.
        mask_blocks, mask_ratio: of the MaskNet module.
        max_hidden: bound of the hidden width in the MLP and MaskNet modules.
        dropout: inside the modules.
    """

    token_dim: int = 16
    num_tokens: int = 4
    layers: tuple[tuple[Interaction, ...], ...] = (("mask", "mlp"), ("transformer", "mlp"))
    ensemble: Ensemble = "concat"
    mask_blocks: int = 4
    mask_ratio: float = 1.0
    max_hidden: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for modules in self.layers:
            if not modules:
                raise ValueError("layers: expected at least one module in each layer, found none")
            if self.ensemble == "concat" and self.num_tokens % len(modules):
                raise ValueError(
                    f"num_tokens: expected a multiple of {len(modules)} modules for ensemble "
                    f"'concat', found {self.num_tokens}"
                )
        if not self.layers:
            raise ValueError("layers: expected at least one layer, found none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceConfig:
    """The encoder of a sequence group.

    Attributes:
        max_len: newest elements that are read, of those the table keeps; cost grows with it.
        latest: newest positions kept verbatim beside the summary.
    """

    max_len: int = 16
    num_layers: int = 1
    num_heads: int = 2
    latest: int = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensConfig:
    """How declared features become tokens.

    Attributes:
        token_dim: width of a token.
        categorical_dim: width of categorical tables.
    """

    token_dim: int = 16
    categorical_dim: int = 16
    sequence: SequenceConfig = field(default_factory=SequenceConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsConfig:
    """A mixture of DCNv2 experts.

    Attributes:
        gate: one that all tasks share, or one for each task (MMoE).
        cross_layers: of each expert.
        cross_rank: None crosses in full rank, which costs the square of the width.
        hidden: widths of the deep part of an expert.
    """

    num_experts: int = 4
    gate: Literal["shared", "per_task"] = "shared"
    cross_layers: int = 3
    cross_rank: int | None = None
    hidden: tuple[int, ...] = (512, 256)

    def __post_init__(self) -> None:
        for name in ("num_experts", "cross_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if not self.hidden:
            raise ValueError("hidden: expected at least one width, found none")
