"""`derm forget`: remove users or Pins from everything that is kept, and prove that they are gone.

Removed from: events, feature snapshots (their rows, and their ids inside lists and sequences),
late rows, quarantine, raw, daily and every retained pool, both Redis slots and what Redis saved,
and for Pins the index. Partitions are rewritten in place, a bucket at a time, and manifests take
their new digests, so nothing has to be recomputed. Not removed: the source files, which are not the
pipeline's, and what a model learned; its snapshots hold hashed ids, and no list of them.
It has the pipeline alone; killed anywhere, the same command finishes it, and no day begins before.
"""

import argparse
import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.base import ENTITIES, Contract, Entity
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import DermError, InputError, MissingInput
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.lake.buckets import bucket_of
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.late import late_table, quarantine_table
from feature_store.lake.maintenance import tidy
from feature_store.lake.staging import read_files
from jobs.cli import out
from jobs.engine import locks
from jobs.engine.context import RunContext
from jobs.engine.manifests import write_atomic
from jobs.engine.runner import open_context
from jobs.pipelines.catalog import Pipeline
from jobs.repair.unfinished import refuse
from jobs.settings import Home, Settings
from jobs.upkeep.unpublish import unpublish


class Forgotten(Contract):
    """What `derm forget` did. Ids are digests here: the record must not keep what it removed.

    Attributes:
        found: rows (or list elements) removed, by table and day.
        online: keys removed, by slot.
    """

    entity: Entity
    ids: tuple[str, ...]
    at: str
    found: dict[str, dict[str, int]]
    online: dict[str, int]


class Begun(Contract):
    """A forget that has begun, on disk until it is finished.

    Attributes:
        ids: SHA-256 of each id.
        partitions: what may be rewritten, as it was before.
    """

    entity: Entity
    ids: tuple[str, ...]
    partitions: tuple[Artifact, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm forget`."""
    parser.add_argument("--entity", choices=ENTITIES, required=True, help="user or pin")
    parser.add_argument("--id", dest="ids", action="append", default=[], help="repeatable")
    parser.add_argument("--file", type=Path, help="a file of ids, one per line")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Forget, prove, record."""
    ids = sorted({*args.ids, *(args.file.read_text().split() if args.file else ())})
    if not ids:
        raise InputError("nobody to forget", expected="--id ID or --file FILE", found="neither")
    ctx = open_context(settings, Home.load(settings.home).start_ds)
    with locks.alone(settings.home, "derm forget"):
        _check_whole(ctx)
        record = forget(ctx, args.entity, ids)
        write_atomic(
            settings.home / "forgotten" / f"{record.at.replace(':', '')}.json",
            record.model_dump_json(indent=2) + "\n",
        )
    if args.json:
        out(record.model_dump_json())
        return 0
    for table, days in record.found.items():
        out(f"{table}: {sum(days.values())} removed from {len(days)} days")
    out(f"online: {json.dumps(record.online)}")
    out(f"{len(ids)} {args.entity} ids are gone from every file below {ctx.lake.root}")
    return 0


def forget(ctx: RunContext, entity: Entity, ids: Sequence[str]) -> Forgotten:
    """Remove ids from the lake, then from what is published; check that nothing is left.

    Raises:
        DermError: an id was found again after everything was removed.
    """
    gone = pa.array(ids, pa.string())
    tables = (
        *source_tables(ctx.spec),
        *embedding_tables(ctx.pipeline, entity),
        ctx.spec.counts_table(entity),
    )
    lists = lists_of(ctx.spec, entity)
    begun = _begin(ctx, entity, ids, tables)
    found: dict[str, dict[str, int]] = {}
    for table in tables:
        for ds in ctx.lake.days(table.name):
            if table.bucketed:
                removed = _scrub_buckets(ctx.lake, table, ds, entity, gone)
            else:
                removed = _scrub_day(ctx.lake, table, ds, entity, gone, lists)
            if removed:
                found.setdefault(f"lake:{table.name}", {})[ds] = removed
    # Also what an attempt before this one has rewritten.
    renamed = [(was, now) for was in begun.partitions if (now := _as_it_is(ctx.lake, was)) != was]
    ctx.manifests.relabel(renamed)
    online = unpublish(ctx, entity, gone, {was.digest: now for was, now in renamed})
    for table in tables:
        if ctx.lake.exists(table.name):
            tidy(ctx.lake, table.name, orphan_hours=0)
    prove_gone(ctx.lake, tables, entity, gone, lists)
    begun_path(ctx.root).unlink()
    return Forgotten(
        entity=entity,
        ids=begun.ids,
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        found=found,
        online=online,
    )


def _check_whole(ctx: RunContext) -> None:
    """Refuse where ids would be missed, or where half of a repair would be published.

    Raises:
        MissingInput: the home has run days, and there is no table.
        GuardFailed: a repair has begun and is not finished.
    """
    days = ctx.manifests.days()
    if days and not ctx.lake.tables():
        raise MissingInput(
            "the lake of this home is not here, so nobody can be found in it",
            where=str(ctx.lake.root),
            expected=f"the tables of {days[0]} to {days[-1]}",
            found="no table",
            hint="is it in an object store? DERM_LAKE says where",
        )
    if days:
        refuse(ctx.root, days[-1])


def begun_path(home: Path) -> Path:
    """Where a forget that has begun is recorded; there is no file when none is under way."""
    return home / "forgotten" / "begun.json"


def _begin(ctx: RunContext, entity: Entity, ids: Sequence[str], tables: Sequence[Table]) -> Begun:
    """Record what may be rewritten, or find the record of an attempt that was killed.

    Raises:
        InputError: others were being forgotten.
    """
    digests = tuple(hashlib.sha256(i.encode()).hexdigest() for i in ids)
    path = begun_path(ctx.root)
    if path.exists():
        begun = Begun.model_validate_json(path.read_text())
        if (begun.entity, begun.ids) == (entity, digests):
            return begun
        raise InputError(
            "others are being forgotten, and that is not finished",
            where=str(path),
            expected=f"the {len(begun.ids)} {begun.entity} ids that were begun with",
            found=f"{len(digests)} {entity} ids",
            hint="run the interrupted command again first",
        )
    begun = Begun(
        entity=entity,
        ids=digests,
        partitions=tuple(
            ctx.lake.artifact(t.name, d) for t in tables for d in ctx.lake.days(t.name)
        ),
    )
    write_atomic(path, begun.model_dump_json(indent=2) + "\n")
    return begun


def _as_it_is(lake: Lake, was: Artifact) -> Artifact:
    name = was.name.removeprefix("lake:")
    # Retention may have dropped the day since.
    return lake.artifact(name, was.ds) if was.ds in lake.days(name) else was


def source_tables(spec: DatasetSpec) -> tuple[Table, ...]:
    """Tables that name entities beside the embeddings."""
    events = spec.events_table()
    tables = (events, late_table(events), quarantine_table(events))
    return (*tables, spec.users_table(), spec.pins_table())


def embedding_tables(pipeline: Pipeline, entity: Entity) -> tuple[Table, ...]:
    """The embedding tables of an entity type, of every upstream that embeds it."""
    kinds = (raw_table, daily_table, pool_table)
    names = [u.name for u in pipeline.upstreams if entity in u.entities]
    return tuple(kind(name, entity) for name in names for kind in kinds)


def lists_of(spec: DatasetSpec, entity: Entity) -> tuple[str, ...]:
    """The list and sequence features that hold ids of an entity type."""
    return tuple(f.name for f in spec.features if f.ids_of == entity)


def scrub(
    rows: pa.Table, entity: Entity, gone: pa.Array, lists: Sequence[str]
) -> tuple[pa.Table, int]:
    """Rows without those of the ids, and with "" for the ids inside lists; how many there were.

    The place in a sequence stays: other sequences say what was done, or where, at the same place.

    Args:
        lists: columns of lists that may hold the ids.
    """
    keys = [c for c in (f"{entity}_id", "entity_id") if c in rows.column_names]
    removed = 0
    for key in keys:
        hit = pc.is_in(rows[key], value_set=gone)
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


def _scrub_day(
    lake: Lake, table: Table, ds: str, entity: Entity, gone: pa.Array, lists: Sequence[str]
) -> int:
    rows, removed = scrub(lake.read(table, ds), entity, gone, lists)
    if removed:
        lake.overwrite(table, ds, rows)
    return removed


def _scrub_buckets(lake: Lake, table: Table, ds: str, entity: Entity, gone: pa.Array) -> int:
    """Rewrite the buckets that the ids belong to, and no others."""
    files, total = lake.bucket_files(table.name, ds), 0
    for bucket in sorted(set(bucket_of(gone, len(files)).tolist())):
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
