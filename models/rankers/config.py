"""What the rankers are made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field

from models.nn.config import DhenConfig, ExpertsConfig, SequenceConfig, TokensConfig

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class CtrConfig:
    """A mixture of DCNv2 experts over one wide concatenation.

    Attributes:
        categorical_dim: width of categorical tables.
        sequence_dim: width of what is left of a sequence.
        projection: width of the embedding block before the crosses; 0 leaves it as wide as it is.
        tower: hidden widths of each task's tower.
    """

    categorical_dim: int = 8
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    sequence_dim: int = 32
    projection: int = 0
    experts: ExpertsConfig = field(
        default_factory=lambda: ExpertsConfig(num_experts=4, cross_layers=2, hidden=(64, 32))
    )
    tower: tuple[int, ...] = (32,)


@dataclass(frozen=True, kw_only=True, slots=True)
class CvrConfig:
    """A tower of DHEN layers over tokens, one of them per embedding.

    Attributes:
        dhen: the backbone.
        categorical_dim: width of categorical tables.
        head: hidden widths of each task's head.
        next_action: weight of the auxiliary loss that predicts the newest action of the user's
            sequence from those before it; 0 turns it off.
        temperature: initial, of that loss.
    """

    dhen: DhenConfig = field(default_factory=DhenConfig)
    categorical_dim: int = 16
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    head: tuple[int, ...] = (32,)
    next_action: float = 0.0
    temperature: float = 0.07

    @property
    def tokens(self) -> TokensConfig:
        """How features become tokens."""
        return TokensConfig(
            token_dim=self.dhen.token_dim,
            categorical_dim=self.categorical_dim,
            sequence=self.sequence,
        )


RankerConfig = CtrConfig | CvrConfig
DEFAULTS: dict[str, RankerConfig] = {"ctr": CtrConfig(), "cvr": CvrConfig()}
