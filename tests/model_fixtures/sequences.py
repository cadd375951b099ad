"""Timelines made of random numbers, and batches that a sequence model reads."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from feature_store.contracts.sequences import SamplingConfig
from feature_store.reading.pairs import DAY_US, OldestFirst
from feature_store.reading.sequences import DaySequences, Source
from feature_store.reading.timelines import newest_first
from jobs.engine.scratch import scratch_folder
from models.nn.config import NegativesConfig
from models.pinnerformer.config import PinnerFormerConfig
from models.pinnerformer.inputs import sequence_inputs
from models.pinnerformer.model import PinnerFormer
from models.pinnerformer.objective import PinnerFormerObjective
from tests.model_fixtures.world import World, spec

TINY = PinnerFormerConfig(
    embedding_dim=8,
    dim=16,
    num_layers=1,
    num_heads=2,
    max_len=6,
    pin_hidden=12,
    sampling=SamplingConfig(rows=4, window_days=3),
    negatives=NegativesConfig(max_in_batch=16, random=8, sketch_width=2**10),
)


def timelines(actions: int = 3000, *, users: int = 40, days: int = 40) -> OldestFirst:
    """Actions at whole hours, so that many share a moment; action 1 is no positive."""
    random = np.random.default_rng(0)
    hour = DAY_US // 24
    columns = {
        "user": random.integers(0, users, actions).astype(np.uint64),
        "pin": random.integers(0, 50, actions).astype(np.uint64),
        "ts": random.integers(0, days * 24, actions) * hour,
        "tie": random.integers(0, 2**60, actions).astype(np.uint64),
        "action": random.integers(1, 4, actions).astype(np.int32),
        "surface": np.ones(actions, np.int32),
        "duration_s": np.ones(actions, np.float32),
        "day": np.zeros(actions, np.int64),
    }
    return OldestFirst.of(newest_first(columns, actions))


def reader(world: World, ds: str, days: tuple[str, ...], config=TINY) -> DaySequences:
    """A day of a tiny world as the family reads it."""
    source = Source(
        lake=world.lake,
        spec=world.spec,
        history=days,
        scratch=lambda: scratch_folder(Path(world.root), "test"),
        buckets=3,
    )
    assert days[-1] == ds
    return DaySequences(source, sequence_inputs(world.spec, config))


def objective(config: PinnerFormerConfig = TINY) -> PinnerFormerObjective:
    """A new one on the tiny data set, with the same weights every time."""
    torch.manual_seed(0)
    return PinnerFormerObjective(PinnerFormer(sequence_inputs(spec(), config), config), config)


def batch(
    config: PinnerFormerConfig = TINY, *, users: int = 5, seed: int = 0
) -> dict[str, np.ndarray]:
    """Sequences of one to six actions, pairs and drawn Pins, without a lake."""
    random = np.random.default_rng(seed)
    length = random.integers(1, config.max_len + 1, users)
    count, pins = int(length.sum()), 9
    ends = np.cumsum(length)
    begin = 1.7e9 + random.random(users) * 1e6
    ts = np.concatenate(
        [b + np.sort(random.random(n)) * 1e5 for b, n in zip(begin, length, strict=True)]
    )
    sequence = np.repeat(np.arange(users), 2)
    key = random.integers(-(2**62), 2**62, users)
    return {
        "key:user": key,
        "length": length,
        "ts": ts,
        "action": random.integers(1, 4, count).astype(np.int32),
        "surface": random.integers(1, 3, count).astype(np.int32),
        "duration_s": np.where(random.random(count) < 0.3, np.nan, 9).astype(np.float32),
        "element": random.integers(0, pins, count),
        "key:pin": random.permutation(1000)[:pins],
        "content": random.standard_normal((pins, 6)).astype(np.float32),
        "row": ends[sequence] - 1 - random.integers(0, length)[sequence],
        "target": random.integers(0, pins, 2 * users),
        "negative": random.integers(0, pins, 2 * users),
        "weight": np.ones(2 * users, np.float32),
        "pair:user": key[sequence],
        "random:key:pin": random.permutation(1000)[:8],
        "random:content": random.standard_normal((8, 6)).astype(np.float32),
    }


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A batch as the loop hands it over."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def changed(config: PinnerFormerConfig = TINY, **parts) -> PinnerFormerConfig:
    """A configuration with some fields of its parts replaced: negatives__pool="random"."""
    for name, value in parts.items():
        part, _, field = name.rpartition("__")
        if part:
            value = dataclasses.replace(getattr(config, part), **{field: value})
        config = dataclasses.replace(config, **{part or field: value})
    return config
