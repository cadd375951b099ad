"""Rankers of the tiny data set, and random batches with vectors from pools."""

import torch
from torch import Tensor

from feature_store.contracts.base import ENTITIES
from feature_store.contracts.datasets import Feature
from feature_store.reading.pools import PoolInput
from models.nn.config import DhenConfig, ExpertsConfig, IdFacetsConfig
from models.rankers.config import CtrConfig, CvrConfig, RankerConfig
from models.rankers.ctr import CtrRanker
from models.rankers.cvr import CvrRanker
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from tests.model_fixtures import batches
from tests.model_fixtures.world import spec

WIDTH = 6
_SMALL = ExpertsConfig(num_experts=2, cross_layers=2, hidden=(8, 4))
CTR = CtrConfig(categorical_dim=3, sequence_dim=4, experts=_SMALL, tower=(4,))
PER_TASK = CtrConfig(
    categorical_dim=3,
    sequence_dim=4,
    projection=5,
    experts=ExpertsConfig(num_experts=2, gate="per_task", cross_layers=2, hidden=(8, 4)),
    tower=(4,),
)
CVR = CvrConfig(dhen=DhenConfig(token_dim=8, num_tokens=4), head=(4,))
IDS = IdFacetsConfig(facets="one, two", user_rows=9, pin_rows=9, dim=3)
VECTORS = tuple(
    PoolInput(upstream=u, entity=e, dim=WIDTH, since="2025-01-01").feature
    for u in ("ctr", "cvr")
    for e in ENTITIES
)


def inputs(vectors: tuple[Feature, ...] = VECTORS) -> RankingInputs:
    """What the tiny data set and four pools offer."""
    return RankingInputs.of(spec(), "ctr", vectors)


def ranker(config: RankerConfig, vectors: tuple[Feature, ...] = VECTORS) -> CtrRanker | CvrRanker:
    """A ranker with seeded weights."""
    return objective(config, vectors).model


def objective(config: RankerConfig, vectors: tuple[Feature, ...] = VECTORS) -> RankingObjective:
    """An objective with seeded weights."""
    return RankingObjective(inputs(vectors), config)


def looked_up() -> tuple[tuple[Feature, ...], tuple[Feature, ...]]:
    """The categorical features and the lists of both entities."""
    features = (*inputs().user, *inputs().pin)
    return tuple(tuple(f for f in features if f.kind == kind) for kind in ("categorical", "list"))  # type: ignore[return-value]


def some_missing(rows: int, width: int) -> Tensor:
    """Vectors of rows, the first of which, and then every third, is missing."""
    vectors = torch.randn(rows, width)
    vectors[::3] = 0
    return vectors


def batch(rows: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Random rows with vectors."""
    found = batches.batch(rows, seed=seed)
    return found | {f.name: some_missing(rows, f.dim) for f in VECTORS}
