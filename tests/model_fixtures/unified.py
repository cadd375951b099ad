"""A unified ranker of the tiny data set, whose two surfaces have a feature each of their own."""

import dataclasses

import torch
from torch import Tensor

from models.nn.config import ExpertsConfig
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.config import HistoryConfig, TreeConfig, UnifiedConfig
from models.rankers.unified.model import UnifiedRanker
from tests.model_fixtures import rankers
from tests.model_fixtures.world import spec

HISTORY = HistoryConfig(
    max_len=4, width=4, num_layers=1, num_heads=2, latest=2, projection=3, cross_rank=2
)
SMALL = UnifiedConfig(
    categorical_dim=3,
    sequence_dim=4,
    projection=5,
    history=HISTORY,
    experts=ExpertsConfig(
        num_experts=3, gate="per_task", cross_layers=2, cross_rank=4, hidden=(8, 4)
    ),
    tree=TreeConfig(hidden=(4,)),
)
# Large enough to learn something in days of a few hundred rows.
ABLE = dataclasses.replace(
    SMALL,
    projection=0,
    programs=False,
    experts=dataclasses.replace(SMALL.experts, hidden=(16, 8)),
    tree=TreeConfig(hidden=(8,)),
)
# Each part switched off, one at a time.
WITHOUT = {
    "history": dataclasses.replace(SMALL, history=HistoryConfig(max_len=0)),
    "candidate": dataclasses.replace(SMALL, history=dataclasses.replace(HISTORY, candidate=False)),
    "projection": dataclasses.replace(SMALL, history=dataclasses.replace(HISTORY, projection=0)),
    "experts": dataclasses.replace(
        SMALL, experts=dataclasses.replace(SMALL.experts, num_experts=1)
    ),
    "gates": dataclasses.replace(SMALL, experts=dataclasses.replace(SMALL.experts, gate="shared")),
    "trees": dataclasses.replace(SMALL, tree=TreeConfig(per_surface=False)),
    "own features": dataclasses.replace(SMALL, tree=TreeConfig(own=False)),
    "crosses": dataclasses.replace(SMALL, tree=TreeConfig(cross_layers=0)),
    "weights": dataclasses.replace(SMALL, weights="even"),
}


def inputs() -> RankingInputs:
    """What the tiny data set offers: `position` is the home feed's, `query` search's."""
    declared = spec().model_copy(
        update={"surface_features": {"home": ("position",), "search": ("query",)}}
    )
    return RankingInputs.of(declared, "ctr", rankers.VECTORS)


def ranker(config: UnifiedConfig = SMALL) -> UnifiedRanker:
    """A ranker with weights of torch's generator."""
    return UnifiedRanker(inputs(), config)


def objective(config: UnifiedConfig = SMALL) -> RankingObjective:
    """An objective with weights of torch's generator."""
    return RankingObjective(inputs(), config)


def batch(rows: int, *, surfaces: tuple[int, ...] = (1, 2), seed: int = 0) -> dict[str, Tensor]:
    """Random rows, their surfaces in turn."""
    found = rankers.batch(rows, seed=seed)
    turn = torch.arange(rows) % len(surfaces)
    return found | {"surface": torch.tensor(surfaces)[turn].int()}


def of_users(rows: dict[str, Tensor], at: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows whose users are repeated, and the same with each user once."""
    offered = inputs()
    names = {f.name for f in (*offered.user, *offered.vectors) if f.scope == "user"}
    repeated = {n: (x[at] if n in names | {"key:user"} else x) for n, x in rows.items()}
    return repeated, rows | {"key:user": rows["key:user"][at], "row:user": at}
