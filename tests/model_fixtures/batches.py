"""Random batches of the tiny data set, with every feature present."""

import numpy as np
import torch
from torch import Tensor

from feature_store.contracts.datasets import Feature
from models.derm.config import DermConfig, LossConfig
from models.derm.features import ModelInputs
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.nn.config import DhenConfig
from tests.model_fixtures.world import spec

# Tiny tensors: a second thread would only wait.
torch.set_num_threads(1)

SMALL = DermConfig(tower=DhenConfig(token_dim=8, num_tokens=4), loss=LossConfig(sketch_width=2**10))


def inputs(upstream: str = "ctr") -> ModelInputs:
    """What the tiny data set offers."""
    return ModelInputs.of(spec(), upstream)


def model(config: DermConfig = SMALL, upstream: str = "ctr") -> DermModel:
    """A model with seeded weights."""
    torch.manual_seed(0)
    return DermModel(inputs(upstream), config)


def objective(config: DermConfig = SMALL, upstream: str = "ctr") -> DermObjective:
    """An objective with seeded weights."""
    return DermObjective(model(config, upstream))


def batch(rows: int, *, seed: int = 0, upstream: str = "ctr") -> dict[str, Tensor]:
    """Random rows; the first one is always a positive."""
    random = np.random.default_rng(seed)
    declared, offered = spec(), inputs(upstream)
    features = (*offered.user, *offered.pin, *offered.context)
    arrays = {f.name: _feature(f, rows, random) for f in features}
    for label in declared.labels_of(upstream):
        arrays[f"label:{label.name}"] = random.integers(0, 2, rows).astype(np.float32)
        arrays[f"label:{label.name}"][:1] = 1
    arrays["late"] = np.zeros(rows, bool)
    arrays["surface"] = random.integers(1, 3, rows).astype(np.int32)
    arrays["ts"] = 1.74e9 + random.random(rows) * 86_400
    arrays["key:user"] = random.integers(0, 2**60, rows)
    arrays["key:pin"] = random.integers(0, 2**60, rows)
    return {k: torch.from_numpy(v) for k, v in arrays.items()}


def with_random_pins(rows: dict[str, Tensor], *, seed: int) -> dict[str, Tensor]:
    """The rows, and as many Pins drawn beside them."""
    drawn = batch(len(rows["ts"]), seed=seed)
    names = ("key:pin", *(f.name for f in inputs().pin))
    return rows | {f"random:{name}": drawn[name] for name in names}


def take(tensors: dict[str, Tensor], rows) -> dict[str, Tensor]:
    """Some rows of a batch."""
    return {k: v[rows] for k, v in tensors.items()}


def _feature(feature: Feature, rows: int, random: np.random.Generator) -> np.ndarray:
    if feature.kind == "numeric":
        return random.random(rows).astype(np.float32)
    if feature.kind == "embedding":
        return random.standard_normal((rows, feature.dim)).astype(np.float32)
    shape = (rows,) if feature.kind == "categorical" else (rows, feature.max_len)
    return random.integers(1, feature.cardinality, shape).astype(np.int32)
