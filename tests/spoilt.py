"""A day with wrong embeddings: a part of each is another one's."""

import numpy as np
import pyarrow as pa

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import raw_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import pack, unpack
from feature_store.lake.staging import read_files, stage_file


def spoil(lake: Lake, upstream: Upstream, entity: Entity, ds: str) -> Artifact:
    """Mix a neighbour into every embedding of a day; no guard notices, the digest does."""
    table = raw_table(upstream, entity)
    properties = lake.properties(table.name)
    dim = int(properties["dim"])
    staged = []
    for bucket, files in lake.bucket_files(table.name, ds).items():
        rows = read_files(files, table)
        vectors = unpack(rows["embedding"], dim)
        mixed = vectors + 0.5 * np.roll(vectors, 1, axis=0)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        position = rows.column_names.index("embedding")
        rows = rows.set_column(
            position,
            rows.schema.field(position),
            pa.chunked_array([pack(mixed.astype(np.float32))]),
        )
        staged.append(stage_file(lake.root, table, ds, rows, bucket=bucket))
    return lake.commit(table, ds, staged, properties=properties)
