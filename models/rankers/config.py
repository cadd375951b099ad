"""What the rankers are made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

from models.nn.config import (
    DhenConfig,
    ExpertsConfig,
    IdFacetsConfig,
    SequenceConfig,
    TokensConfig,
)
from models.rankers.parts.sizes import RelationsConfig
from models.rankers.unified.config import UnifiedConfig
from models.training.config import TrainingConfig

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class CtrConfig:
    """A mixture of DCNv2 experts over one wide concatenation.

    Attributes:
        categorical_dim: width of categorical tables.
        sequence_dim: width of what is left of a sequence.
        projection: width of the embedding block before the crosses; 0 leaves it as wide as it is.
        tower: hidden widths of each task's tower.
        relations: what it makes of a graph's vectors, beside reading them.
        ids: tables of hashed ids.
    """

    categorical_dim: int = 8
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    sequence_dim: int = 32
    projection: int = 0
    experts: ExpertsConfig = field(
        default_factory=lambda: ExpertsConfig(num_experts=4, cross_layers=2, hidden=(64, 32))
    )
    tower: tuple[int, ...] = (32,)
    relations: RelationsConfig = field(default_factory=RelationsConfig)
    ids: IdFacetsConfig = field(default_factory=IdFacetsConfig)


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
        ids: tables of hashed ids.
    """

    dhen: DhenConfig = field(default_factory=DhenConfig)
    categorical_dim: int = 16
    sequence: SequenceConfig = field(default_factory=SequenceConfig)
    head: tuple[int, ...] = (32,)
    next_action: float = 0.0
    temperature: float = 0.07
    ids: IdFacetsConfig = field(default_factory=IdFacetsConfig)

    @property
    def tokens(self) -> TokensConfig:
        """How features become tokens."""
        return TokensConfig(
            token_dim=self.dhen.token_dim,
            categorical_dim=self.categorical_dim,
            sequence=self.sequence,
        )


RankerConfig = CtrConfig | CvrConfig | UnifiedConfig


def _families() -> dict[str, RankerConfig]:
    return {"ctr": CtrConfig(), "cvr": CvrConfig(), "unified": UnifiedConfig()}


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingConfig:
    """How rankers are trained, evaluated and calibrated.

    Attributes:
        families: what each kind of ranker is made of, by name.
        training: of a ranker; of its fields `together`, `health_rows` and `checkpoint_steps` say
            nothing here.
        late_days: a label that arrives later than this many days after its impression is not
            learned: the pools of its impression's day may be gone.
        prior_rows: how many rows of a day the calibration of the day before weighs.
        calibration: a scale and a shift for each surface and task, or the scale alone.
        draws: of users, for the interval of what embeddings are worth.
        declaration: what one ranker is declared to be, as JSON.
    """

    families: dict[str, RankerConfig] = field(default_factory=_families)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(window_days=7))
    late_days: int = 3
    prior_rows: int = 1000
    calibration: Literal["platt", "temperature"] = "platt"
    draws: int = 1000
    declaration: str = ""

    def __post_init__(self) -> None:
        for name in ("late_days", "prior_rows", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
