"""What is trained, aggregated and published: whole configurations as Python functions.

A variant calls a base recipe and replaces fields; there is no flag for each knob.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from feature_store.config import AggregationConfig, IndexConfig, LayoutConfig, PublishingConfig
from feature_store.contracts.errors import InputError
from jobs.digest import content_digest
from models.derm.config import DermConfig
from models.training.config import InferenceConfig, TrainingConfig
from simulator import config as worlds


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Bounds between the steps; a broken one stops the day and leaves what is published alone."""

    max_auc_drop: float = 0.05
    min_effective_rank: float = 2.0
    min_day_to_day_cosine: float = 0.2
    min_coverage: float = 0.0
    max_pool_shrink: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One complete configuration.

    Attributes:
        simulation: the world of the simulated data set; other data sets ignore it.
    """

    name: str
    simulation: worlds.WorldConfig = field(default_factory=worlds.toy)
    model: DermConfig = field(default_factory=DermConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    publishing: PublishingConfig = field(default_factory=PublishingConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)

    def digest(self, parts: tuple[str, ...]) -> str:
        """Digest of the named parts: what the result of a step depends on."""
        chosen = {p: dataclasses.asdict(getattr(self, p)) for p in parts}
        return content_digest(json.dumps(chosen, sort_keys=True))


def toy() -> Recipe:
    """Minutes on two cores: the whole pipeline, small."""
    return Recipe(name="toy")


RECIPES: dict[str, Callable[[], Recipe]] = {"toy": toy}


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError("unknown recipe", expected=" | ".join(RECIPES), found=name)
    return RECIPES[name]()
