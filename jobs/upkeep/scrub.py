"""Taking ids out of the tables of the lake, and the proof that no file of them names one."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import Entity
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.edges import graph_table
from feature_store.contracts.errors import DermError
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.late import late_table, quarantine_table
from feature_store.lake.staging import read_files, read_parts

# Of an edge.
_ENDS = ("head", "tail")
_KINDS = {"raw": raw_table, "daily": daily_table, "pool": pool_table}


def tables_of(lake: Lake, spec: DatasetSpec, entity: Entity) -> tuple[Table, ...]:
    """Every table of the lake that names entities of a type.

    Embedding tables are those that are there: also of upstreams that are declared no more.
    """
    events = spec.events_table()
    sources = (events, late_table(events), quarantine_table(events))
    embeddings = [n.split("/") for n in lake.tables() if n.startswith("embeddings/")]
    return (
        *sources,
        spec.users_table(),
        spec.pins_table(),
        *(_KINDS[kind](u, entity) for _, u, e, kind in embeddings if e == entity),
        spec.counts_table(entity),
        graph_table(),
        *spec.tables,
    )


def lists_of(spec: DatasetSpec, entity: Entity) -> tuple[str, ...]:
    """The lists and sequences that hold ids of an entity type."""
    columns = {c.name for table in spec.tables for c in table.columns}
    also = {f"{entity}_ids"} & columns
    return (*(f.name for f in spec.features if f.ids_of == entity), *also)


def keys_of(entity: Entity) -> tuple[str, ...]:
    """The columns that hold ids of an entity type in a table of `tables_of`.

    Those of an end of an edge hold them where the type of the end beside them says so.
    """
    return (f"{entity}_id", "entity_id", *(f"{end}_id" for end in _ENDS))


def known(
    lake: Lake, tables: Sequence[Table], entity: Entity, ids: pa.Array, lists: Sequence[str]
) -> set[str]:
    """The ids that a table names, in rows or inside lists."""
    found: set[str] = set()
    for table in tables:
        there = [c.name for c in table.columns]
        names = [name for name in there if name in (*keys_of(entity), *lists)]
        types = [f"{end}_type" for end in _ENDS if f"{end}_type" in there]
        for ds in lake.days(table.name):
            for part in read_parts(_files(lake, table, ds, ids), table, [*names, *types]):
                for name in names:
                    column = part[name].filter(_is_of(part, name, entity))
                    flat = pc.list_flatten(column) if pa.types.is_list(column.type) else column
                    hits = flat.filter(pc.is_in(flat, value_set=ids))
                    found.update(pc.unique(hits).to_pylist())
    return found


def _files(lake: Lake, table: Table, ds: str, ids: pa.Array) -> Sequence[str]:
    """The files of a day that may name the ids: of a bucketed table those of their buckets."""
    if not table.bucketed:
        return lake.files(table.name, ds)
    files = lake.bucket_files(table.name, ds)
    return [f for b in _buckets(table, ids, len(files)) for f in files[b]]


def _buckets(table: Table, ids: pa.Array, buckets: int) -> Sequence[int]:
    """The buckets that may name the ids: theirs; of edges all, because they have two ends."""
    if table.bucket_key != "entity_id":
        return range(buckets)
    return sorted(set(bucket_of(ids, buckets).tolist()))


def _is_of(rows: pa.Table, key: str, entity: Entity) -> pa.ChunkedArray:
    """Which rows hold an id of the entity type in a column."""
    end = key.removesuffix("_id")
    if end not in _ENDS:
        return pa.chunked_array([pa.repeat(pa.scalar(True), len(rows))])
    return pc.equal(rows[f"{end}_type"], entity)


def scrub_day(
    lake: Lake, table: Table, ds: str, entity: Entity, gone: pa.Array, lists: Sequence[str]
) -> int:
    """Rewrite a day of a table without the ids; how many rows and list elements there were."""
    if table.bucketed:
        return _scrub_buckets(lake, table, ds, entity, gone)
    rows, removed = scrub(lake.read(table, ds), entity, gone, lists)
    if removed:
        lake.overwrite(table, ds, rows)
    return removed


def scrub(
    rows: pa.Table, entity: Entity, gone: pa.Array, lists: Sequence[str]
) -> tuple[pa.Table, int]:
    """Rows without those of the ids, and with "" for the ids inside lists; how many there were.

    The place in a sequence stays: other sequences say what was done, or where, at the same place.

    Args:
        lists: columns of lists that may hold the ids.
    """
    keys = [c for c in keys_of(entity) if c in rows.column_names]
    removed = 0
    for key in keys:
        hit = pc.and_(pc.is_in(rows[key], value_set=gone), _is_of(rows, key, entity))
        removed += pc.sum(hit).as_py() or 0
        rows = rows.filter(pc.invert(hit))
    for column in (c for c in lists if c in rows.column_names):
        kept, dropped = _without(rows[column].combine_chunks(), gone)
        removed += dropped
        rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), kept)
    return rows, removed


def prove_gone(
    lake: Lake, tables: Sequence[Table], entity: Entity, gone: pa.Array, lists: Sequence[str]
) -> None:
    """Read every file that is left on disk, in a version or not, and look for the ids.

    Raises:
        DermError: one was found; it names the file.
    """
    for table in tables:
        for file in lake.root.files(lake.path(table.name), ".parquet"):
            if "/_delta_log/" in file:
                continue
            _, left = scrub(read_files([file], table), entity, gone, lists)
            if left:
                raise DermError(
                    "an id that was to be forgotten is still on disk",
                    where=file,
                    expected="no trace of it",
                    found=f"{left} rows or list elements",
                    hint="a step was running: pause the daily run and forget again",
                )


def _scrub_buckets(lake: Lake, table: Table, ds: str, entity: Entity, gone: pa.Array) -> int:
    """Rewrite the buckets that the ids belong to, and no others."""
    files, total = lake.bucket_files(table.name, ds), 0
    for bucket in _buckets(table, gone, len(files)):
        rows, removed = scrub(read_files(files[bucket], table), entity, gone, ())
        if removed:
            staged = stage_file(lake.root, table, ds, rows, bucket=bucket)
            lake.replace_bucket(table, ds, staged)
            total += removed
    return total


def _without(lists: pa.ListArray, gone: pa.Array) -> tuple[pa.ListArray, int]:
    """Lists with "" in the place of the elements that are gone."""
    values = lists.flatten()
    hit = pc.is_in(values, value_set=gone)
    removed = pc.sum(hit).as_py() or 0
    if not removed:
        return lists, 0
    offsets = np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy())).astype(np.int32)
    blanked = pc.if_else(hit, "", values)
    return pa.ListArray.from_arrays(pa.array(offsets), blanked, type=lists.type), removed
