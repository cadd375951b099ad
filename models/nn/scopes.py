"""Declared features of one scope as tokens.

A batch maps names to tensors: features by their own name.

Shapes: B rows, M tokens of the scope, D token width, T positions.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from feature_store.contracts.datasets import Feature, FeatureScope
from models.nn.config import TokensConfig
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
        self, features: tuple[Feature, ...], scope: FeatureScope, config: TokensConfig
    ) -> None:
        super().__init__()
        if foreign := [f.name for f in features if f.scope != scope]:
            raise ValueError(f"scope: expected only {scope} features, found {foreign}")
        dim, width = config.token_dim, config.categorical_dim
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
            normalize.fit_spread(columns(sample, names))

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BMD."""
        tokens = [token(batch[name]) for name, token in self.single.items()]
        tokens += [
            encoder([batch[f.name] for f in group])
            for group, encoder in zip(self.sequences, self.encoders, strict=True)
        ]
        tokens += [
            token(columns(batch, names))
            for names, token in zip(self.numeric, self.dense, strict=True)
        ]
        return torch.stack(tokens, dim=1)


class ContextTokens(nn.Module):
    """What belongs to no entity: surface, time of the event, context features.

    Args:
        features: those of the context.
        num_surfaces: values of `surface`; 0 is one that was never seen.

    Source: DERM, section 3.1; its figure 1.
    Deviations: none.
    """

    def __init__(
        self, features: tuple[Feature, ...], num_surfaces: int, config: TokensConfig
    ) -> None:
        super().__init__()
        dim = config.token_dim
        self.surface = CategoricalToken(num_surfaces + 1, config.categorical_dim, dim)
        self.time = TimeToken(dim)
        self.declared = ScopeTokens(features, "context", config) if features else None
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


def columns(batch: Batch, names: tuple[str, ...]) -> Tensor:
    """Numeric features [B, F] side by side."""
    return torch.stack([batch[name] for name in names], dim=-1)
