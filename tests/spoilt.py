"""A day with wrong embeddings: every vector turned round."""

import pyarrow as pa

from feature_store.contracts.base import Entity, Upstream
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import raw_table
from feature_store.lake import Lake
from feature_store.schemas import pack, unpack
from feature_store.staging import read_files, stage_file


def spoil(lake: Lake, upstream: Upstream, entity: Entity, ds: str) -> Artifact:
    """Turn every embedding of a day round; the digest says so."""
    table = raw_table(upstream, entity)
    properties = lake.properties(table.name)
    dim = int(properties["dim"])
    staged = []
    for bucket, files in lake.bucket_files(table.name, ds).items():
        rows = read_files(files, table)
        turned = pack(-unpack(rows["embedding"], dim))
        position = rows.column_names.index("embedding")
        rows = rows.set_column(position, rows.schema.field(position), pa.chunked_array([turned]))
        staged.append(stage_file(lake.root, table, ds, rows, bucket=bucket))
    return lake.commit(table, ds, staged, properties=properties)
