"""Vectors from pools as inputs of a ranker: normalised, flagged where missing, projected.

A pool that does not know an entity says so with a vector of zeros; so does a vector that is zero.

Shapes: B rows, U distinct entities, N vectors of an entity, E width of a vector, D token width,
P projected width, O outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.base import ENTITIES
from feature_store.contracts.datasets import Feature
from models.nn.distinct import of_rows
from models.nn.tokens import Token
from models.protocol import Batch


class PoolVector(nn.Module):
    """One vector of an entity, or the learned default where there is none; then whether.

    Args:
        dim: E.

    Source: DERM (arXiv 2509.04337), section 3.2; dense vectors get a LayerNorm each
    (InteractRank).
    Deviations: the LayerNorm has no weights, since a linear map follows. It takes the length away,
    which a moving average leaves different from vector to vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.default = nn.Parameter(torch.zeros(dim))
        self.out_dim = dim + 1

    def forward(self, x_UE: Tensor) -> Tensor:
        """Map x_UE to out_UO, O = E + 1: the vector, then 1 where it is missing."""
        missing_U1 = (x_UE == 0).all(dim=1, keepdim=True)
        normal_UE = functional.layer_norm(x_UE, x_UE.shape[1:])
        known_UE = torch.where(missing_U1, self.default, normal_UE)
        return torch.cat([known_UE, missing_U1.to(known_UE.dtype)], dim=1)


class VectorBlock(nn.Module):
    """All vectors of a row side by side, or projected.

    A projection of the whole block is a sum of projections of its parts: users are projected once
    each, however many rows they have, and so are Pins.

    Args:
        features: what is read from pools, of users and Pins; at least one.
        projection: P; 0 leaves the block as it is.

    Source: DERM, section 3.2 and appendix D.1.
    Deviations: none.
    """

    def __init__(self, features: Sequence[Feature], projection: int) -> None:
        super().__init__()
        self.names = {e: tuple(f.name for f in features if f.scope == e) for e in ENTITIES}
        self.vectors = nn.ModuleDict({f.name: PoolVector(f.dim) for f in features})
        widths = {e: sum(f.dim + 1 for f in features if f.scope == e) for e in ENTITIES}
        self.project = nn.ModuleDict(
            {
                e: nn.Linear(width, projection, bias=False)
                for e, width in widths.items()
                if width and projection
            }
        )
        self.out_dim = projection or sum(widths.values())

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BO."""
        parts: list[Tensor] = []
        for entity, names in self.names.items():
            if not names:
                continue
            x_UO = torch.cat([self.vectors[name](batch[name]) for name in names], dim=1)
            projected = self.project[entity](x_UO) if len(self.project) else x_UO
            parts.append(of_rows(batch, entity, projected))
        return torch.stack(parts).sum(dim=0) if len(self.project) else torch.cat(parts, dim=1)


class VectorTokens(nn.Module):
    """One token for each vector.

    Source: DERM, section 3.2, for the conversion ranker.
    Deviations: none.
    """

    def __init__(self, features: Sequence[Feature], token_dim: int) -> None:
        super().__init__()
        self.scopes = {f.name: f.scope for f in features}
        self.vectors = nn.ModuleDict({f.name: PoolVector(f.dim) for f in features})
        self.tokens = nn.ModuleDict({f.name: Token(f.dim + 1, token_dim) for f in features})
        self.num_tokens = len(self.scopes)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BND."""
        tokens = [
            of_rows(batch, scope, self.tokens[name](self.vectors[name](batch[name])))
            for name, scope in self.scopes.items()
            if scope != "context"
        ]
        return torch.stack(tokens, dim=1)
