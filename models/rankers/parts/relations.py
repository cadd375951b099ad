"""Vectors of a graph as its relations see them: a user's views, and how far the Pin is from each.

Shapes: B rows, U distinct users, P distinct Pins, R relations, E width of a vector, O outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from feature_store.contracts.base import ENTITIES, Entity
from feature_store.contracts.datasets import Feature
from feature_store.contracts.errors import InputError
from models.nn.distinct import of_rows
from models.protocol import Batch
from models.rankers.parts.sizes import RelationsConfig

_SPREAD = 0.1


class RelationViews(nn.Module):
    """Views e_u M_r + r of a user, attended to by the Pin, and how far e_p M_r is from each.

    What is learned of a matrix or a translation is what it differs from where it began, multiplied
    by `pace`: with an optimizer whose steps do not depend on the size of gradients they move at
    that part of the rate of everything else.

    Args:
        features: vectors that the ranker reads from pools.

    Source: TransRA (as far as its publication says: embeddings in large tables, and fine-tuning by
    attention over them); views and distances: TransR (Lin et al. 2015), equations 8 and 9. How they
    are put together is this project's own reading.
    Deviations: matrices begin as the identity, or as `begin` is told; vectors of the Pins that a
    user engaged with are not among the keys, since a row holds their ids alone.

    Raises:
        InputError: there is no vector of the upstream for users and Pins, or of two widths, or of
            one that the heads do not divide.
    """

    base_REE: Tensor
    base_RE: Tensor

    def __init__(self, features: Sequence[Feature], config: RelationsConfig) -> None:
        super().__init__()
        self.names = {e: f"{e}_{config.upstream}_vector" for e in ENTITIES}
        width = self._width(features, config)
        relations = config.relations
        self.pace = config.pace
        self.register_buffer("base_REE", torch.eye(width).repeat(relations, 1, 1))
        # Relations that are alike in everything would stay so.
        self.register_buffer("base_RE", _SPREAD * torch.randn(relations, width))
        self.delta_REE = nn.Parameter(torch.zeros(relations, width, width))
        self.delta_RE = nn.Parameter(torch.zeros(relations, width))
        self.query = nn.Linear(width, width, bias=False)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.out_dim = width + relations + 1

    def _width(self, features: Sequence[Feature], config: RelationsConfig) -> int:
        found = {f.name: f.dim for f in features if f.name in self.names.values()}
        widths = set(found.values())
        if len(found) < len(self.names) or len(widths) > 1 or min(widths) % config.heads:
            raise InputError(
                "a ranker compares vectors of a graph that do not fit",
                where=f"relations.upstream: {config.upstream}",
                expected=f"{' and '.join(self.names.values())}, of one width that {config.heads} "
                "heads divide",
                found=" ".join(f"{f.name} ({f.dim})" for f in features) or "no vectors",
                hint="name the upstream in the ranker's pools",
            )
        return widths.pop()

    @torch.no_grad()
    def begin(self, matrix_REE: Tensor, move_RE: Tensor) -> None:
        """Start from the matrices and translations of a graph model."""
        self.base_REE.copy_(matrix_REE)
        self.base_RE.copy_(move_RE)
        self.delta_REE.zero_()
        self.delta_RE.zero_()

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BO, O = E + R + 1.

        What is attended to, minus the squared distance of each relation, and 1 where a vector is
        missing; all else is 0 there.
        """
        matrix_REE = self.base_REE + self.pace * self.delta_REE
        move_RE = self.base_RE + self.pace * self.delta_RE
        vectors = {e: batch[name].float() for e, name in self.names.items()}
        view_URE = torch.einsum("ue,ref->urf", vectors["user"], matrix_REE) + move_RE
        seen_PRE = torch.einsum("pe,ref->prf", vectors["pin"], matrix_REE)
        view_BRE = of_rows(batch, "user", view_URE)
        distance_BR = -(view_BRE - of_rows(batch, "pin", seen_PRE)).square().sum(-1)
        query_B1E = of_rows(batch, "pin", self.query(vectors["pin"]))[:, None]
        attended_B1E, _ = self.attention(query_B1E, view_BRE, view_BRE, need_weights=False)
        there_B1 = self._there(batch, vectors, "user") * self._there(batch, vectors, "pin")
        found_BO = torch.cat([attended_B1E[:, 0], distance_BR], dim=1)
        return torch.cat([found_BO * there_B1, 1 - there_B1], dim=1)

    def _there(self, batch: Batch, vectors: dict[Entity, Tensor], entity: Entity) -> Tensor:
        """1 in rows [B, 1] whose entity has a vector; one of zeros says that it has none."""
        there_U1 = (vectors[entity] != 0).any(dim=1, keepdim=True)
        return of_rows(batch, entity, there_U1.float())
