"""`derm rebucket`: bring embeddings, counts and the graph to the bucket counts of the recipe.

A table's bucket count is fixed when it is created. This command builds each table anew beside the
old one, a Spark task per new bucket, and then gives it the old one's name; manifests take the new
digests, so nothing has to be recomputed. Pause the daily run first. Killed anywhere, run it again.

    derm rebucket
    derm rebucket --import part-1.parquet part-2.parquet --ds D --upstream ctr --entity user

The second form takes raw embeddings that another team wrote without buckets into the lake.
"""

import argparse
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.edges import graph_table, nodes_table
from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.lake.layout import Layout
from feature_store.spark.rebucket import (
    ImportTask,
    MoveTask,
    import_file,
    move_bucket,
    sources,
)
from jobs.console import day, out
from jobs.engine import locks
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.pipelines import catalog
from jobs.settings import Home, Settings
from jobs.steps.aggregation import run_bucket_tasks


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm rebucket`."""
    parser.add_argument("--import", dest="files", nargs="+", type=Path, help="raw Parquet files")
    parser.add_argument("--ds", type=day, help="day of the files")
    parser.add_argument("--upstream", metavar="NAME", help="model that made them")
    parser.add_argument("--entity", choices=ENTITIES, help="entity type they are of")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Re-bucket every table whose layout is not the recipe's, or import files."""
    if args.files and not (args.ds and args.upstream and args.entity):
        raise InputError("incomplete request", expected="--ds --upstream --entity")
    ctx = open_context(settings, args.ds or Home.load(settings.home).start_ds, args.upstream)
    with locks.alone(settings.home, "derm rebucket"):
        if args.files:
            artifact = import_raw(ctx, args.upstream, args.entity, args.files)
            out(f"{artifact.name} of {args.ds}: {artifact.rows} rows")
        else:
            _rebucket_all(ctx)
    return 0


def _rebucket_all(ctx: RunContext) -> None:
    for upstream in ctx.pipeline.upstreams:
        for entity in upstream.entities:
            for declare in (raw_table, daily_table, pool_table):
                _rebucket(ctx, declare(upstream.name, entity), entity)
        if upstream.reads == "edges":
            _rebucket(ctx, nodes_table(upstream.name), "pin")
    for entity in ENTITIES:
        _rebucket(ctx, ctx.spec.counts_table(entity), entity)
    # Most heads of edges are users.
    _rebucket(ctx, graph_table(), "user")
    out("every table is laid out as the recipe says")


def _rebucket(ctx: RunContext, table: Table, entity: Entity) -> None:
    for artifact in rebucket(ctx, table, ctx.recipe.layout.buckets(entity)):
        out(f"{artifact.name} of {artifact.ds}: {artifact.rows} rows moved")


def rebucket(ctx: RunContext, table: Table, buckets: int) -> list[Artifact]:
    """Move one table to another bucket count; its partitions as they are named afterwards.

    Raises:
        InputError: the lake is an object store, where a table cannot be renamed at once.
    """
    if ctx.lake.root.is_remote:
        raise InputError(
            "tables of an object store cannot be re-bucketed in place",
            where=ctx.lake.path(table.name),
            expected="a lake in a folder: a table takes another's name in one rename",
            found=str(ctx.lake.root),
            hint="copy the lake into the home's folder, re-bucket there, copy it back",
        )
    target = f"{table.name}.rebucketed"
    ends = (table.name, target, f"{table.name}.retired", f"{table.name}.done")
    final, made, retired, done = (Path(ctx.lake.path(name)) for name in ends)
    shutil.rmtree(done, ignore_errors=True)
    if not retired.exists():
        if not ctx.lake.exists(table.name):
            return []
        old = ctx.lake.layout(table.name)
        if old.buckets == buckets:
            return []
        shutil.rmtree(made, ignore_errors=True)
        ctx.lake.close(target)
        layout = Layout(dim=old.dim, buckets=buckets, dtype=old.dtype)
        for ds in ctx.lake.days(table.name):
            _move_day(ctx, table, target, ds, old.buckets, layout)
        final.rename(retired)
        ctx.lake.close(table.name)
    # From here on a killed run is finished by the next one: the old table marks what is left to do.
    if not final.exists():
        made.rename(final)
    days = ctx.lake.days(table.name)
    moved = [ctx.lake.artifact(table.name, ds) for ds in days]
    was = [ctx.lake.artifact(f"{table.name}.retired", ds) for ds in days]
    renamed = [(w.model_copy(update={"name": m.name}), m) for w, m in zip(was, moved, strict=True)]
    # These answer to the layout of the recipe, which it now is.
    answering = [s for s in catalog.every_step() if "layout" in s.recipe_parts]
    stamps = {s.name: ctx.recipe.digest(s.recipe_parts) for s in answering}
    ctx.manifests.relabel(renamed, stamps)
    # Renamed first: a table half removed could not say any more what was.
    retired.rename(done)
    shutil.rmtree(done)
    return moved


def import_raw(ctx: RunContext, upstream: Upstream, entity: Entity, files: list[Path]) -> Artifact:
    """Take raw rows without buckets as the raw partition of a day."""
    table, buckets = raw_table(upstream, entity), ctx.recipe.layout.buckets(entity)
    tasks = [
        ImportTask(
            root=ctx.lake.root,
            upstream=upstream,
            entity=entity,
            ds=ctx.ds,
            number=number,
            buckets=buckets,
            file=str(file.absolute()),
        )
        for number, file in enumerate(files)
    ]
    staged = [f for split in run_bucket_tasks(ctx, import_file, tasks) for f in split]
    first = pq.read_table(files[0], columns=["embedding"])["embedding"]
    # float32, as everything in the lake.
    layout = Layout(dim=len(first[0].as_py()) // 4, buckets=buckets)
    return ctx.lake.commit(table, ctx.ds, staged, properties=layout.properties())


def _move_day(
    ctx: RunContext, table: Table, target: str, ds: str, old: int, layout: Layout
) -> None:
    files = ctx.lake.bucket_files(table.name, ds)
    tasks = [
        MoveTask(
            root=ctx.lake.root,
            table=table,
            target=target,
            ds=ds,
            bucket=bucket,
            buckets=layout.buckets,
            files=tuple(f for b in sources(bucket, old, layout.buckets) for f in files[b]),
        )
        for bucket in range(layout.buckets)
    ]
    staged = run_bucket_tasks(ctx, move_bucket, tasks)
    renamed = table.model_copy(update={"name": target})
    ctx.lake.commit(renamed, ds, staged, properties=layout.properties())
