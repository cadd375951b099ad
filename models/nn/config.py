"""Sizes of the shared blocks. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

from feature_store.contracts.base import Entity
from feature_store.contracts.sequences import names_in

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
class IdTableConfig:
    """A table of vectors for ids that are hashed.

    Attributes:
        rows: of the table; row 0 is everybody's who has none.
        dim: width of a row.
        hashes: rows that are added up for an id: 1 or 2. With two, ids that meet in one row seldom
            meet in the other.
        min_count: an id that was counted less often has no row of its own.
    """

    rows: int = 2**14
    dim: int = 32
    hashes: int = 1
    min_count: int = 5

    def __post_init__(self) -> None:
        for name, least in (("rows", 2), ("dim", 1), ("min_count", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected >= {least}, found {getattr(self, name)}")
        if self.hashes not in (1, 2):
            raise ValueError(f"hashes: expected 1 or 2, found {self.hashes}")


@dataclass(frozen=True, kw_only=True, slots=True)
class IdFacetsConfig:
    """Tables of hashed ids beside the features: for each facet one of users and one of Pins.

    Attributes:
        facets: their names, separated by commas; none where empty.
        combine: vectors of facets side by side, or each through a linear map of its own and added.
        user_rows, pin_rows, dim, hashes, min_count: of every table, see `IdTableConfig`.
        learning_rate: of row-wise Adagrad; 0 leaves tables as they were loaded.
        by_frequency: rows learn the faster the oftener they were read.
    """

    facets: str = ""
    combine: Literal["concat", "sum"] = "concat"
    user_rows: int = 2**14
    pin_rows: int = 2**14
    dim: int = 32
    hashes: int = 1
    min_count: int = 5
    learning_rate: float = 0.005
    by_frequency: bool = False

    def __post_init__(self) -> None:
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate: expected >= 0, found {self.learning_rate}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"facets: expected names that differ, found {self.facets}")

    @property
    def names(self) -> tuple[str, ...]:
        """The facets."""
        return names_in(self.facets)

    def table(self, entity: Entity) -> IdTableConfig:
        """A table of an entity."""
        return IdTableConfig(
            rows=self.user_rows if entity == "user" else self.pin_rows,
            dim=self.dim,
            hashes=self.hashes,
            min_count=self.min_count,
        )
