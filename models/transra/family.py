"""TransRA as a family of upstreams: reads edges, embeds users and Pins."""

import dataclasses
from collections.abc import Iterable, Mapping

from torch import Tensor

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.edges import EdgeInputs, edge_kinds
from feature_store.contracts.errors import InputError
from feature_store.contracts.sequences import SequenceInputs
from models.protocol import FirstWindow, Objective
from models.training.checkpoint import Tensors
from models.transra.config import ARCHITECTURE, GraphConfig
from models.transra.graph import Ints, Relation
from models.transra.objective import GraphObjective, without


class TransraFamily:
    """See README.md beside this file."""

    version = ARCHITECTURE

    def objective(
        self,
        spec: DatasetSpec,
        upstream: Upstream,
        config: GraphConfig,
        pools: Iterable[Feature],
    ) -> GraphObjective:
        """The graph model, for every relation that the data set can have; nodes come with a day.

        Raises:
            InputError: the declaration reads pools of other upstreams: a node has no features. Or
                the anchor relation is none of the data set's.
        """
        if read := [pool.name for pool in pools]:
            raise InputError(
                "a graph model reads no pools",
                where=f"upstream {upstream}: pools",
                expected="none",
                found=" ".join(read),
            )
        relations = [
            Relation(name=f"{head}_{name}_{tail}", head=head, tail=tail)
            for head, name, tail in edge_kinds(spec)
        ]
        anchor = f"user_{config.score.anchor_relation}_pin"
        score = dataclasses.replace(config.score, anchor_relation=anchor)
        return GraphObjective(relations, dataclasses.replace(config, score=score))

    def fit(self, objective: Objective, window: FirstWindow) -> None:
        """Nothing: there are no features."""

    def random_pins(self, config: GraphConfig) -> int:  # noqa: ARG002
        """None: negatives are drawn from the nodes that the model knows."""
        return 0

    def sequences(self, spec: DatasetSpec, config: GraphConfig) -> SequenceInputs:
        """Never asked: it reads edges."""
        raise NotImplementedError

    def without(
        self,
        config: GraphConfig,  # noqa: ARG002
        weights: Mapping[str, Tensor],
        entity: Entity,
        key_M: Ints,
    ) -> tuple[Tensors, int]:
        """A snapshot's weights without the rows of some users or Pins, and how many there were."""
        left = without(weights, entity, key_M)
        if left is None:
            return dict(weights), 0
        return left, len(weights["key_N"]) - len(left["key_N"])

    def edges(self, spec: DatasetSpec, config: GraphConfig) -> EdgeInputs:
        """What is read of the graph of a day."""
        return EdgeInputs(
            kinds=edge_kinds(spec),
            least_degree=config.least_degree,
            chunk_rows=config.draw.chunk_rows,
            power=config.draw.relation_power,
            passes=config.passes,
            first_passes=config.first_passes,
        )


FAMILY = TransraFamily()
