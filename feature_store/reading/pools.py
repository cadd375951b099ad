"""Pools of other upstreams as features: the vectors that stood at the end of the day before.

They become arrays beside the other features of an entity, one row per entity of the day, filled a
batch of pool rows at a time; rows of events find them by the entity's row, so memory depends on the
entities of a day and never on its events.

Shapes: N entities, B rows, D width of a pool's vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.contracts.base import Entity, Upstream, shift_day
from feature_store.contracts.datasets import Feature
from feature_store.contracts.errors import ContractViolation
from feature_store.contracts.tables import pool_table
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from feature_store.reading.counts import RowsOfEntities

_CHUNK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolInput:
    """The pool of another upstream as a feature of one entity type.

    Attributes:
        dim: width of its vectors.
        since: first day whose pool may be read: of those before, nobody is known.
        lag: days between the pool and who reads it; 0 reads the pool of the same day, which holds
            what happened on it: a leak, there to be measured.
    """

    upstream: Upstream
    entity: Entity
    dim: int
    since: str
    lag: int = 1

    @property
    def feature(self) -> Feature:
        """The feature; zeros where the pool does not know the entity."""
        return Feature(
            name=f"{self.entity}_{self.upstream}_vector",
            scope=self.entity,
            kind="embedding",
            dim=self.dim,
            meaning=f"vector in the pool of {self.upstream} at the end of the day before",
        )


class EntityVectors:
    """The vectors of one entity type in other upstreams' pools, as of the start of a day.

    Args:
        ds: the day; its own pools are not read, they hold what happened on it.
        rows: the entities that features are made for.

    Raises:
        MissingInput: the pool of the day before is not there, and should be.
        ContractViolation: its vectors have another width, or are no numbers.
    """

    def __init__(
        self, lake: Lake, pools: Sequence[PoolInput], ds: str, rows: RowsOfEntities
    ) -> None:
        self._lake, self._pools = lake, tuple(pools)
        # One row per entity, then one for the unknown.
        self._vectors = {p.feature.name: self._as_of(p, ds, rows) for p in self._pools}

    def recall(self, rows_of_days: Mapping[str, RowsOfEntities]) -> None:
        """Append entities as of earlier days, a day after the other.

        Raises:
            MissingInput: the pool of the day before one of them is not there, and should be.
        """
        for pool in self._pools:
            name = pool.feature.name
            earlier = [self._as_of(pool, ds, rows)[:-1] for ds, rows in rows_of_days.items()]
            self._vectors[name] = np.concatenate([self._vectors[name], *earlier])

    def take(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float32]]:
        """The features of chosen rows: name -> float32 [B, D]."""
        return {name: vectors_ND[rows] for name, vectors_ND in self._vectors.items()}

    def _as_of(self, pool: PoolInput, ds: str, rows: RowsOfEntities) -> npt.NDArray[np.float32]:
        """Vectors [N + 1, D] before a day; zeros where the pool does not know the entity."""
        vectors_ND = np.zeros((len(rows) + 1, pool.dim), np.float32)
        before = shift_day(ds, -pool.lag)
        if before < pool.since or not len(rows):
            return vectors_ND
        table = pool_table(pool.upstream, pool.entity)
        packed = self._lake.layout(table.name).packed
        batches = self._lake.dataset(table, [before]).to_batches(
            columns=["entity_id", "embedding"], batch_size=_CHUNK_ROWS
        )
        for batch in batches:
            at = rows.rows_of(stable_hash(batch.column("entity_id")))
            known = at < len(rows)
            found_BD = unpack(batch.column("embedding"), pool.dim, packed)
            vectors_ND[at[known]] = found_BD[known]
        if broken := int((~np.isfinite(vectors_ND).all(axis=1)).sum()):
            raise ContractViolation(
                f"the pool of {pool.upstream} holds vectors that are no numbers",
                where=f"{self._lake.path(table.name)} day {before}",
                expected="finite numbers",
                found=f"{broken} vectors with NaN or infinity",
                hint=f"derm merge --ds {before} --upstream {pool.upstream} --force",
            )
        return vectors_ND
