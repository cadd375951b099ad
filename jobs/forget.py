"""`derm forget`: remove users or Pins from everything that is kept, and prove that they are gone.

Removed from: events, feature snapshots (their rows, and their ids inside lists and sequences),
late rows, quarantine, raw, daily and every retained pool, both Redis slots and what Redis saved,
and for Pins the index. Partitions are rewritten in place, a bucket at a time, and manifests take
their new digests, so nothing has to be recomputed. Not removed: the source files, which are not the
pipeline's, and what a model learned; its snapshots hold hashed ids, and no list of them.
Pause the daily run first: files that a running step has staged would be vacuumed.
"""

import argparse
import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.buckets import bucket_of
from feature_store.contracts.base import ENTITIES, UPSTREAMS, Contract, Entity
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import DermError, InputError
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.lake import Lake, stage_file
from feature_store.late import late_table, quarantine_table
from feature_store.maintenance import tidy
from feature_store.online import open_store
from feature_store.releases import Releases
from feature_store.staging import read_files
from jobs import catalog, exclusion
from jobs.cli import out
from jobs.context import RunContext
from jobs.manifests import write_atomic
from jobs.runner import open_context, run_step
from jobs.services.redis import ensure_redis, persist
from jobs.settings import Home, Settings


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
    with exclusion.alone(settings.home, "derm forget"):
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
    found: dict[str, dict[str, int]] = {}
    artifacts: list[Artifact] = []
    for table in source_tables(ctx.spec):
        for ds in ctx.lake.days(table.name):
            _keep_books(found, artifacts, _scrub_day(ctx.lake, table, ds, entity, gone))
    for table in embedding_tables(entity):
        for ds in ctx.lake.days(table.name):
            for step in _scrub_buckets(ctx.lake, table, ds, gone):
                _keep_books(found, artifacts, step)
    ctx.manifests.relabel(artifacts)
    online = _unpublish(ctx, entity, gone)
    for table in (*source_tables(ctx.spec), *embedding_tables(entity)):
        if ctx.lake.exists(table.name):
            tidy(ctx.lake, table.name, orphan_hours=0)
    prove_gone(ctx.lake, (*source_tables(ctx.spec), *embedding_tables(entity)), entity, gone)
    return Forgotten(
        entity=entity,
        ids=tuple(hashlib.sha256(i.encode()).hexdigest() for i in ids),
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        found=found,
        online=online,
    )


def source_tables(spec: DatasetSpec) -> tuple[Table, ...]:
    """Tables that name entities beside the embeddings."""
    events = spec.events_table()
    tables = (events, late_table(events), quarantine_table(events))
    return (*tables, spec.users_table(), spec.pins_table())


def embedding_tables(entity: Entity) -> tuple[Table, ...]:
    """The embedding tables of an entity type, both upstreams."""
    kinds = (raw_table, daily_table, pool_table)
    return tuple(kind(u, entity) for u in UPSTREAMS for kind in kinds)


def scrub(table: Table, rows: pa.Table, entity: Entity, gone: pa.Array) -> tuple[pa.Table, int]:
    """Rows without those of the ids, and without the ids inside lists; how many were removed."""
    keys = [c for c in (f"{entity}_id", "entity_id") if c in rows.column_names]
    removed = 0
    for key in keys:
        hit = pc.is_in(rows[key], value_set=gone)
        removed += pc.sum(hit).as_py() or 0
        rows = rows.filter(pc.invert(hit))
    for column in (c.name for c in table.columns if c.dtype == "list<string>"):
        kept, dropped = _without(rows[column].combine_chunks(), gone)
        removed += dropped
        rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), kept)
    return rows, removed


def prove_gone(lake: Lake, tables: Sequence[Table], entity: Entity, gone: pa.Array) -> None:
    """Read every file that is left on disk, in a version or not, and look for the ids.

    Raises:
        DermError: one was found; it names the file.
    """
    for table in tables:
        for file in sorted(lake.path(table.name).rglob("*.parquet")):
            if "_delta_log" in file.parts:
                continue
            _, left = scrub(table, read_files([str(file)], table), entity, gone)
            if left:
                raise DermError(
                    "an id that was to be forgotten is still on disk",
                    where=str(file),
                    expected="no trace of it",
                    found=f"{left} rows or list elements",
                    hint="a step was running: pause the daily run and forget again",
                )


def _scrub_day(
    lake: Lake, table: Table, ds: str, entity: Entity, gone: pa.Array
) -> tuple[Artifact, int] | None:
    rows, removed = scrub(table, lake.read(table, ds), entity, gone)
    return (lake.overwrite(table, ds, rows), removed) if removed else None


def _scrub_buckets(
    lake: Lake, table: Table, ds: str, gone: pa.Array
) -> Iterator[tuple[Artifact, int]]:
    """Rewrite the buckets that the ids belong to, and no others."""
    files = lake.bucket_files(table.name, ds)
    for bucket in sorted(set(bucket_of(gone, len(files)).tolist())):
        rows = read_files(files[bucket], table)
        kept = rows.filter(pc.invert(pc.is_in(rows["entity_id"], value_set=gone)))
        if len(kept) < len(rows):
            staged = stage_file(lake.root, table, ds, kept, bucket=bucket)
            yield lake.replace_bucket(table, ds, staged), len(rows) - len(kept)


def _keep_books(
    found: dict[str, dict[str, int]], artifacts: list[Artifact], step: tuple[Artifact, int] | None
) -> None:
    if step is not None:
        artifact, removed = step
        days = found.setdefault(artifact.name, {})
        days[artifact.ds] = days.get(artifact.ds, 0) + removed
        artifacts.append(artifact)


def _without(lists: pa.ListArray, gone: pa.Array) -> tuple[pa.ListArray, int]:
    """Lists without the elements that are gone."""
    hit = pc.is_in(lists.flatten(), value_set=gone)
    removed = pc.sum(hit).as_py() or 0
    if not removed:
        return lists, 0
    keep = pc.invert(hit)
    parents = pc.list_parent_indices(lists).filter(keep).to_numpy()
    ends = np.cumsum(np.bincount(parents, minlength=len(lists)))
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    values = lists.flatten().filter(keep)
    return pa.ListArray.from_arrays(offsets, values, type=lists.type), removed


def _unpublish(ctx: RunContext, entity: Entity, gone: pa.Array) -> dict[str, int]:
    """Remove users from every slot; build the index of the current release again without Pins."""
    releases = Releases(ctx.root, open_store(ensure_redis(ctx.settings), ctx.recipe.publishing))
    current = releases.current()
    if current is None:
        return {}
    if entity == "pin":
        _rebuild_index(ctx, current.ds)
        kept = {u.index_path for u in (releases.current() or current).upstreams}
        for release in releases.known():
            for index in {u.index_path for u in release.upstreams} - kept:
                shutil.rmtree(ctx.root / index, ignore_errors=True)
        return {f"index of {current.ds}": len(gone)}
    online: dict[str, int] = {}
    for prefix in sorted({u.users_prefix for r in releases.known() for u in r.upstreams}):
        present = releases.store.read(prefix, gone.to_pylist())
        online[prefix] = sum(value is not None for value in present)
        with releases.store.writer(prefix) as writer:
            writer.remove(gone)
        releases.store.seal(prefix)
    releases.store.purge()
    persist(ctx.settings)
    return online


def _rebuild_index(ctx: RunContext, ds: str) -> None:
    """Index, publish and release the current day again; its pool has changed."""
    for name in ("index", "publish", "release"):
        step = catalog.step(name)
        for upstream in UPSTREAMS if step.per_upstream else (None,):
            run_step(ctx.settings, step, ds, upstream, force=True)
