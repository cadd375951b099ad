"""Batches of pairs for id tables."""

import numpy as np
import pyarrow as pa
import torch

from feature_store.lake.buckets import stable_hash
from models.id_tables.config import IdTablesConfig
from models.nn.config import NegativesConfig

TINY = IdTablesConfig(
    embedding_dim=4,
    user_rows=101,
    pin_rows=101,
    min_count=2,
    negatives=NegativesConfig(max_in_batch=64, random=6, sketch_width=2**10),
)


def keys(*names: str) -> torch.Tensor:
    """Hashed ids."""
    return torch.from_numpy(stable_hash(pa.array(names)).view(np.int64))


def batch(rows: int, *, random: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Pairs of few users and Pins, some of them twice."""
    draw = np.random.default_rng(seed)
    return _batch(draw.integers(0, 5, rows), draw.integers(0, 7, rows), 7, draw, random)


def groups(
    rows: int, *, users: tuple[str, int], pins: int = 20, seed: int = 0
) -> dict[str, np.ndarray]:
    """Pairs of users and Pins of two groups, each of which likes its own; and drawn Pins."""
    draw = np.random.default_rng(seed)
    name, count = users
    user, pin = draw.integers(0, count, rows), draw.integers(0, pins // 2, rows) * 2
    return _batch(user, pin + user % 2, pins, draw, 16, name)


def tensors(rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch as the loop hands it over."""
    return {name: torch.from_numpy(x) for name, x in rows.items()}


def _batch(user, pin, pins: int, draw, random: int, name: str = "u") -> dict[str, np.ndarray]:
    def hashed(kind: str, numbers) -> np.ndarray:
        return stable_hash(pa.array([f"{kind}{n}" for n in numbers], pa.string())).view(np.int64)

    rows = {
        "key:user": hashed(name, user),
        "key:pin": hashed("p", pin),
        "drawn:key:pin": hashed("p", draw.integers(0, pins, len(user))),
        "random:key:pin": hashed("p", draw.integers(0, pins, random)),
        "weight": draw.choice(np.array([1.0, 4.0], np.float32), len(user)),
    }
    return {**rows, "pair:user": rows["key:user"]}
