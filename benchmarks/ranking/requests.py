"""Random requests to a unified ranker of the market: what its benchmarks are run on."""

import torch
from torch import Tensor

from feature_store.contracts.datasets import Feature
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.config import HistoryConfig, UnifiedConfig
from models.rankers.unified.model import UnifiedRanker
from simulator.market.config import toy
from simulator.market.spec import market_spec

# The home feed.
SURFACE = 1


def new_ranker(max_len: int, width: int) -> UnifiedRanker:
    """A ranker of all surfaces with random weights.

    Args:
        max_len, width: of the history.
    """
    torch.manual_seed(0)
    inputs = RankingInputs.of(market_spec("market", toy()), "ctr", ())
    history = HistoryConfig(max_len=max_len, width=width)
    return UnifiedRanker(inputs, UnifiedConfig(history=history)).eval()


def rows_of(ranker: UnifiedRanker, users: int, candidates: int) -> dict[str, Tensor]:
    """Rows of the home feed that name their user each; a user's rows agree on the user."""
    torch.manual_seed(1)
    count = users * candidates
    at_B = torch.arange(users).repeat_interleave(candidates)
    inputs = ranker.inputs
    batch = {f.name: _random(f, users)[at_B] for f in inputs.user}
    batch |= {f.name: _random(f, count) for f in (*inputs.pin, *inputs.context)}
    return batch | {
        "surface": torch.full((count,), SURFACE, dtype=torch.int32),
        "ts": 1.74e9 + torch.rand(count, dtype=torch.float64) * 86_400,
        "key:user": at_B,
    }


def _random(feature: Feature, rows: int) -> Tensor:
    if feature.kind == "numeric":
        return torch.rand(rows)
    if feature.kind == "embedding":
        return torch.randn(rows, feature.dim)
    shape = (rows,) if feature.kind == "categorical" else (rows, feature.max_len)
    return torch.randint(1, feature.cardinality, shape, dtype=torch.int32)
