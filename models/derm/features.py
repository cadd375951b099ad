"""Declared features as tokens, a scope at a time.

A batch maps names to tensors: features by their own name, `surface` and `ts` of the event,
`key:user` and `key:pin` (hashed ids, int64), and `label:<name>` (float32, NaN where masked). Where
it has `row:user` or `row:pin` (int64), the features of that entity stand once for each distinct
one, and `row:` says which of them an event is about. Pins drawn for the loss alone, another number
of rows, have `random:` before their names.

Shapes: B rows, U distinct entities, M tokens of the scope, D token width, T positions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature, FeatureScope
from models.derm.config import DermConfig
from models.nn.tokens import (
    BagToken,
    CategoricalToken,
    DenseToken,
    NumericRange,
    NumericToken,
    SequenceToken,
    TimeToken,
)

Batch = Mapping[str, Tensor]
RANDOM = "random:"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInputs:
    """What a data set offers to one upstream model.

    Attributes:
        user, pin, context: disjoint lists of features, one per tower.
        tasks: labels, the primary one first.
        positives: labels whose 1 makes a row a positive of the self-supervised loss.
        num_surfaces: values of `surface`.
    """

    upstream: Upstream
    user: tuple[Feature, ...]
    pin: tuple[Feature, ...]
    context: tuple[Feature, ...]
    tasks: tuple[str, ...]
    positives: tuple[str, ...]
    num_surfaces: int

    @classmethod
    def of(
        cls, spec: DatasetSpec, upstream: Upstream, pools: Iterable[Feature] = ()
    ) -> "ModelInputs":
        """The inputs that a data set declares, and those read from other upstreams' pools."""
        read = tuple(pools)
        labels = spec.labels_of(upstream)
        return cls(
            upstream=upstream,
            user=(*spec.inputs_of("user"), *(f for f in read if f.scope == "user")),
            pin=(*spec.inputs_of("pin"), *(f for f in read if f.scope == "pin")),
            context=spec.inputs_of("context"),
            tasks=tuple(x.name for x in labels),
            positives=tuple(x.name for x in labels if x.role != "auxiliary"),
            num_surfaces=len(spec.surfaces),
        )


class ScopeTokens(nn.Module):
    """The tokens of one scope; it can read no feature of another.

    One token for each group of numeric features (those declared without one are a group: so counts,
    rates and what the data set brings are three), one for each categorical, list and embedding
    feature, one for each group of parallel sequences (same length, same name up to the last
    underscore: `seen_pins`, `seen_actions`).

    Args:
        scope: the only scope its features may have.

    Source: DERM, section 3.1: only the overall tower sees context and interaction features.
    Deviations: none.
    """

    def __init__(
        self, features: tuple[Feature, ...], scope: FeatureScope, config: DermConfig
    ) -> None:
        super().__init__()
        if foreign := [f.name for f in features if f.scope != scope]:
            raise ValueError(f"scope: expected only {scope} features, found {foreign}")
        dim, width = config.tower.token_dim, config.categorical_dim
        self.numeric = numeric_groups(features)
        self.sequences = sequence_groups(features)
        single: dict[str, nn.Module] = {}
        for feature in features:
            if feature.kind == "categorical":
                single[feature.name] = CategoricalToken(feature.cardinality, width, dim)
            elif feature.kind == "list":
                single[feature.name] = BagToken(feature.cardinality, width, dim)
            elif feature.kind == "embedding":
                single[feature.name] = DenseToken(feature.dim, dim)
        self.single = nn.ModuleDict(single)
        self.encoders = nn.ModuleList(
            SequenceToken(
                tuple(f.cardinality for f in group),
                group[0].max_len,
                width,
                dim,
                config.sequence,
            )
            for group in self.sequences
        )
        self.dense = nn.ModuleList(NumericToken(len(names), dim) for names in self.numeric)
        self.num_tokens = len(self.single) + len(self.encoders) + len(self.numeric)

    def fit(self, ranges: Mapping[str, NumericRange], sample: Batch) -> None:
        """Take over the ranges of the numeric features, and their spread in a sample of rows."""
        for names, token in zip(self.numeric, self.dense, strict=True):
            normalize = cast("NumericToken", token).normalize
            normalize.fit([ranges[name] for name in names])
            normalize.fit_spread(_columns(sample, names))

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BMD."""
        tokens = [token(batch[name]) for name, token in self.single.items()]
        tokens += [
            encoder([batch[f.name] for f in group])
            for group, encoder in zip(self.sequences, self.encoders, strict=True)
        ]
        tokens += [
            token(_columns(batch, names))
            for names, token in zip(self.numeric, self.dense, strict=True)
        ]
        return torch.stack(tokens, dim=1)


class ContextTokens(nn.Module):
    """What only the overall tower sees: surface, time of the event, context features.

    Source: DERM, section 3.1; SPEC A6b.
    Deviations: none.
    """

    def __init__(self, inputs: ModelInputs, config: DermConfig) -> None:
        super().__init__()
        dim = config.tower.token_dim
        self.surface = CategoricalToken(inputs.num_surfaces + 1, config.categorical_dim, dim)
        self.time = TimeToken(dim)
        self.declared = ScopeTokens(inputs.context, "context", config) if inputs.context else None
        self.num_tokens = 2 + (self.declared.num_tokens if self.declared else 0)

    def fit(self, ranges: Mapping[str, NumericRange], sample: Batch) -> None:
        """Take over the ranges of the numeric features, and their spread in a sample of rows."""
        if self.declared:
            self.declared.fit(ranges, sample)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BMD."""
        own = torch.stack([self.surface(batch["surface"]), self.time(batch["ts"])], dim=1)
        return own if self.declared is None else torch.cat([own, self.declared(batch)], dim=1)


def sequence_groups(features: Iterable[Feature]) -> tuple[tuple[Feature, ...], ...]:
    """Sequences that are elements of one encoder: same length, same name up to the last `_`."""

    def group(feature: Feature) -> tuple[str, int]:
        prefix = feature.name.rpartition("_")[0]
        return prefix or feature.name, feature.max_len

    chosen = sorted((f for f in features if f.kind == "sequence"), key=group)
    return tuple(tuple(members) for _, members in groupby(chosen, key=group))


def numeric_groups(features: Iterable[Feature]) -> tuple[tuple[str, ...], ...]:
    """Names of the numeric features that share a token, group by group."""
    chosen = sorted((f for f in features if f.kind == "numeric"), key=lambda f: f.group)
    grouped = groupby(chosen, key=lambda f: f.group)
    return tuple(tuple(f.name for f in members) for _, members in grouped)


def _columns(batch: Batch, names: tuple[str, ...]) -> Tensor:
    """Numeric features [B, F] side by side."""
    return torch.stack([batch[name] for name in names], dim=-1)


def labels(batch: Batch, names: tuple[str, ...]) -> Tensor:
    """The labels_BT of the named tasks, NaN where masked."""
    return torch.stack([batch[f"label:{name}"] for name in names], dim=-1)
