"""The users or Pins of a day as arrays, and those of earlier days that late labels refer to.

Shapes: N entities of the day, P entities of earlier days, B rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import Entity
from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.reading.counts import Counting, EntityCounts
from feature_store.reading.encoding import encode, missing
from feature_store.reading.pools import EntityVectors, PoolInput

Arrays = dict[str, npt.NDArray]
Rows = npt.NDArray[np.int64]

_CHUNK_ROWS = 65_536


class Lookup:
    """The rows of hashed ids [n]; an id that is not among them has the row n."""

    def __init__(self, hashes: npt.NDArray[np.uint64]) -> None:
        self.order = np.argsort(hashes, kind="stable")
        self.ascending = hashes[self.order]

    def __len__(self) -> int:
        return len(self.order)

    def rows_of(self, hashes: npt.NDArray[np.uint64]) -> Rows:
        """The row of each hashed id."""
        if not len(self):
            return np.zeros(len(hashes), np.int64)
        at = np.minimum(np.searchsorted(self.ascending, hashes), len(self) - 1)
        return np.where(self.ascending[at] == hashes, self.order[at], len(self))


class EntityFeatures:
    """One entity type as arrays: rows 0 .. N - 1 are those of the day, and N is an unknown one.

    After `recall` the rows N + 1 .. N + P are entities as of earlier days.

    Attributes:
        arrays: feature -> [N + 1 + P, ...].
        embeds_unknown: an entity that is unknown has an embedding, that of missing features.
    """

    embeds_unknown = True

    def __init__(
        self,
        lake: Lake,
        spec: DatasetSpec,
        entity: Entity,
        ds: str,
        counting: Counting,
        pools: Sequence[PoolInput] = (),
    ) -> None:
        self._lake, self._spec, self._entity = lake, spec, entity
        self._features = spec.features_of(entity)
        self._day, parts = self._read(ds)
        parts.append({f.name: encode(f, missing(f)) for f in self._features})
        self.arrays = self._joined(parts)
        self._earlier: dict[str, tuple[int, Lookup]] = {}
        self._counts = EntityCounts(lake, spec, entity, ds, counting, self._day)
        mine = [p for p in pools if p.entity == entity]
        self._vectors = EntityVectors(lake, mine, ds, self._day)

    def __len__(self) -> int:
        return len(self._day)

    def recall(self, wanted: Mapping[str, pa.Array]) -> None:
        """Append some entities as they were on earlier days, with the counts before those days.

        Args:
            wanted: distinct ids by day; those that a day does not know stay unknown.

        Raises:
            MissingInput: a day is not in the lake, or the day before it was not counted.
        """
        parts, start = [self.arrays], len(self) + 1
        for ds, ids in wanted.items():
            lookup, found = self._read(ds, ids)
            self._earlier[ds] = (start, lookup)
            parts += found
            start += len(lookup)
        self.arrays = self._joined(parts)
        lookups = {ds: lookup for ds, (_, lookup) in self._earlier.items()}
        self._counts.recall(lookups)
        self._vectors.recall(lookups)

    def rows_of(self, hashes: npt.NDArray[np.uint64], ds: str = "") -> Rows:
        """The row of each hashed id, as of the day or, where one is given, as of a recalled day."""
        start, lookup = self._earlier[ds] if ds else (0, self._day)
        rows = lookup.rows_of(hashes)
        return np.where(rows < len(lookup), start + rows, len(self))

    def take(self, rows: Rows) -> Arrays:
        """The features of chosen rows."""
        own = {name: array[rows] for name, array in self.arrays.items()}
        return own | self._counts.take(rows) | self._vectors.take(rows)

    def draw(self, count: int, random: np.random.Generator) -> tuple[Rows, Arrays]:
        """The keys and the features of entities of the day, each as likely as the others."""
        at = random.integers(0, max(len(self), 1), count if len(self) else 0)
        return self._day.ascending[at].view(np.int64), self.take(self._day.order[at])

    def _read(self, ds: str, only: pa.Array | None = None) -> tuple[Lookup, list[Arrays]]:
        return read_entities(self._lake, self._spec, self._entity, ds, self._features, only=only)

    def _joined(self, parts: list[Arrays]) -> Arrays:
        return {f.name: np.concatenate([p[f.name] for p in parts]) for f in self._features}


def read_entities(
    lake: Lake,
    spec: DatasetSpec,
    entity: Entity,
    ds: str,
    features: Sequence[Feature],
    *,
    only: pa.Array | None = None,
) -> tuple[Lookup, list[Arrays]]:
    """The entities of a day, or some of them, and their features in parts.

    Raises:
        MissingInput: the day is not in the lake.
        ContractViolation: the table names one of them twice.
    """
    table = spec.users_table() if entity == "user" else spec.pins_table()
    (key,) = table.key
    batches = lake.dataset(table, [ds]).to_batches(
        columns=[key, *(f.name for f in features)],
        filter=None if only is None else pc.field(key).isin(only),
        batch_size=_CHUNK_ROWS,
    )
    hashes, parts = [np.empty(0, np.uint64)], []
    for batch in batches:
        hashes.append(stable_hash(batch.column(key)))
        parts.append({f.name: encode(f, batch.column(f.name)) for f in features})
    lookup = Lookup(np.concatenate(hashes))
    if same := int((lookup.ascending[1:] == lookup.ascending[:-1]).sum()):
        raise ContractViolation(
            f"table {table.name} names an entity twice",
            where=f"{lake.path(table.name)} day {ds} column {key}",
            expected="one row per entity",
            found=f"{same} repeated ids",
            hint=f"derm validate --ds {ds}",
        )
    return lookup, parts
