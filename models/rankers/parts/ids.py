"""Tables of hashed ids as inputs of a ranker: one for each entity and facet, side by side or added.

A facet is a way in which tables were made before the ranker: from pairs (`models/id_tables`), from
a graph (`models/transra`), or from nothing, by the ranker itself.

Shapes: B rows, R rows of a table, F facets, D width of a table, V vectors of a row, O outputs.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from feature_store.contracts.base import ENTITIES, Entity
from models.nn.config import IdFacetsConfig
from models.nn.id_table import DEFAULT_ROW, IdTable
from models.nn.tokens import Token
from models.protocol import Batch, RowWise
from models.training.distributed import gather


class IdFacets(nn.Module):
    """The tables of a ranker, and the vectors of its rows in them.

    Source: Multi-Faceted Large Embedding Tables (arXiv 2508.05700): tables that were pretrained in
    several ways, fine-tuned in the ranker.
    Deviations: how facets are combined is not public: side by side, or added after a linear map of
    each. Rows are normalised as vectors of pools are, so that tables of any length fit.
    """

    def __init__(self, config: IdFacetsConfig) -> None:
        super().__init__()
        self.config = config
        self.names = {e: tuple(f"{e}_{facet}" for facet in config.names) for e in ENTITIES}
        trained = config.learning_rate > 0
        self.table = nn.ModuleDict(
            {
                name: IdTable(config.table(entity), trained=trained)
                for entity, names in self.names.items()
                for name in names
            }
        )
        summed = [name for names in self.names.values() for name in names]
        self.turn = nn.ModuleDict(
            {n: nn.Linear(config.dim, config.dim) for n in summed if config.combine == "sum"}
        )

    @property
    def num_vectors(self) -> int:
        """V."""
        each = 1 if self.config.combine == "sum" else len(self.config.names)
        return each * len(ENTITIES)

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BVD, users first; in training mode ids are counted."""
        found: list[Tensor] = []
        for entity, names in self.names.items():
            key_B = batch[f"key:{entity}"]
            vectors = [self._vector(name, key_B) for name in names]
            if self.config.combine == "sum":
                turned = (self.turn[n](x_BD) for n, x_BD in zip(names, vectors, strict=True))
                vectors = [torch.stack(list(turned)).sum(dim=0)]
            found += vectors
        return torch.stack(found, dim=1)

    def tables(self) -> dict[str, RowWise]:
        """The weights of the tables that are trained, by name, and how."""
        config = self.config
        return {
            f"table.{name}.weight": RowWise(
                learning_rate=config.learning_rate,
                by_frequency=config.by_frequency,
                sums=f"model.ids.facets.table.{name}.sum_R",
            )
            for name in self.table
            if config.learning_rate > 0
        }

    @torch.no_grad()
    def load(self, facet: str, entity: Entity, weight_RD: Tensor, count_R: Tensor) -> None:
        """Take over a table; rows that nobody has begin as the default row.

        Raises:
            ValueError: there is no such facet, or the table has another shape.
        """
        name = f"{entity}_{facet}"
        if name not in self.table:
            raise ValueError(f"facet: expected one of {self.config.names}, found {facet}")
        table = self._table(name)
        if weight_RD.shape != table.weight.shape:
            raise ValueError(
                f"{name}: expected a table {list(table.weight.shape)}, "
                f"found {list(weight_RD.shape)}"
            )
        taken_R1 = (count_R > 0)[:, None]
        table.weight.copy_(torch.where(taken_R1, weight_RD, weight_RD[DEFAULT_ROW]))
        table.count_R.copy_(count_R)

    def _table(self, name: str) -> IdTable:
        return cast("IdTable", self.table[name])

    def _vector(self, name: str, key_B: Tensor) -> Tensor:
        table = self._table(name)
        if self.training and self.config.learning_rate > 0:
            table.count(gather(key_B))
        x_BD: Tensor = table(key_B)
        return functional.layer_norm(x_BD, x_BD.shape[1:])


class IdBlock(nn.Module):
    """The vectors of a row in one.

    Source: as `IdFacets`.
    Deviations: none.
    """

    def __init__(self, config: IdFacetsConfig) -> None:
        super().__init__()
        self.facets = IdFacets(config)
        self.out_dim = self.facets.num_vectors * config.dim

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BO."""
        x_BVD: Tensor = self.facets(batch)
        return x_BVD.flatten(1)


class IdTokens(nn.Module):
    """One token for each vector.

    Source: as `IdFacets`.
    Deviations: none.
    """

    def __init__(self, config: IdFacetsConfig, token_dim: int) -> None:
        super().__init__()
        self.facets = IdFacets(config)
        self.num_tokens = self.facets.num_vectors
        self.tokens = nn.ModuleList(Token(config.dim, token_dim) for _ in range(self.num_tokens))

    def forward(self, batch: Batch) -> Tensor:
        """Map a batch to x_BVT, T the width of a token."""
        x_BVD: Tensor = self.facets(batch)
        return torch.stack([token(x_BVD[:, v]) for v, token in enumerate(self.tokens)], dim=1)
