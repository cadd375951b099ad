"""`derm forget`: remove users or Pins from everything that is kept, and prove that they are gone.

Removed from: events, feature snapshots (their rows, and their ids inside lists and sequences),
late rows, quarantine, raw, daily and every retained pool, every slot of the online store with its
drafts and saved files, for Pins the index, models that have a row for each of them, id tables that
are served, and what killed steps have left. Partitions are rewritten in place, a bucket at a time,
and manifests take their new digests, so nothing has to be recomputed. Then the tables are read by
column, and everything else below the home by a scanner that knows nothing of the layout. What
nobody here can look into is said (`leftovers.UNSEEN`).
It has the pipeline alone; killed anywhere, the same command finishes it, and no day begins before.
"""

import argparse
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import ENTITIES, Contract, Entity
from feature_store.contracts.errors import InputError, ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import Artifact
from feature_store.contracts.tables import Table
from feature_store.lake.lake import Lake
from feature_store.lake.maintenance import tidy
from jobs.console import out
from jobs.engine import locks
from jobs.engine.context import RunContext
from jobs.engine.runner import open_context
from jobs.engine.unfinished import deletion_path, refuse
from jobs.settings import Home, Settings
from jobs.upkeep import forget_rows, leftovers
from jobs.upkeep.asked import UNCONFIRMED, confirm, read_ids
from jobs.upkeep.scanner import Trace
from jobs.upkeep.scrub import keys_of, known, lists_of, prove_gone, scrub_day, tables_of
from jobs.upkeep.served_tables import forget_served
from jobs.upkeep.unpublish import published, unpublish

_NAMED = 10


class Forgotten(Contract):
    """What `derm forget` did. Ids are digests here: the record must not keep what it removed.

    Attributes:
        unknown: those of the ids that the home did not know.
        found: rows (or list elements) removed, by table and day.
        online: keys removed, by slot; rows, by version and table that is served.
        masked: logs in which an id was overwritten.
        left: files that forget does not rewrite, and that still hold an id.
        unproved: what could not be looked at or rewritten here.
    """

    entity: Entity
    ids: tuple[str, ...]
    at: str
    found: dict[str, dict[str, int]]
    online: dict[str, int]
    unknown: tuple[str, ...] = ()
    masked: int = 0
    left: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()


class Begun(Contract):
    """A forget that has begun, on disk until it is finished.

    Attributes:
        ids: SHA-256 of each id.
        known: of those that the home knew.
        partitions: what may be rewritten, as it was before; snapshots too that have a row for each
            user or Pin.
    """

    entity: Entity
    ids: tuple[str, ...]
    known: tuple[str, ...] = ()
    partitions: tuple[Artifact, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm forget`."""
    parser.add_argument("--entity", choices=ENTITIES, required=True, help="user or pin")
    parser.add_argument("--id", dest="ids", action="append", default=[], help="repeatable")
    parser.add_argument("--file", type=Path, help="a file of ids, one on each line")
    parser.add_argument(
        "--confirm",
        type=int,
        metavar="COUNT",
        help=f"how many different ids there are; asked for above {UNCONFIRMED}",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Forget, prove, record; exit code 1 when a file that is not rewritten here holds an id."""
    ids = read_ids(args.ids, args.file)
    ctx = open_context(settings, Home.load(settings.home).start_ds)
    with locks.alone(settings.home, "derm forget"):
        _check_whole(ctx)
        record = forget(ctx, args.entity, ids, args.confirm)
        write_atomic(
            settings.paths.forgotten / f"{record.at.replace(':', '')}.json",
            record.model_dump_json(indent=2) + "\n",
        )
    unknown = [i for i in ids if _digest(i) in set(record.unknown)]
    if args.json:
        seen = {**record.model_dump(), "unknown_ids": unknown, "unseen": leftovers.UNSEEN}
        out(json.dumps(seen))
    else:
        _say(record, unknown)
    return 1 if record.left else 0


def _say(record: Forgotten, unknown: Sequence[str]) -> None:
    here = len(record.ids) - len(unknown)
    for table, days in record.found.items():
        out(f"{table}: {sum(days.values())} removed from {len(days)} days")
    for slot, keys in record.online.items():
        out(f"{slot}: {keys} removed")
    if record.masked:
        out(f"logs: overwritten in {record.masked}")
    if unknown:
        more = " ..." if len(unknown) > _NAMED else ""
        out(f"{len(unknown)} were not there: {' '.join(map(repr, unknown[:_NAMED]))}{more}")
    for title, lines in (("still there", record.left), ("not proved", record.unproved)):
        for line in lines:
            out(f"{title}: {line}")
    if here:
        out(f"{here} {record.entity} ids are gone from the lake, the store and the home")
    out("not looked into, because it is not this pipeline's:")
    for line in leftovers.UNSEEN:
        out(f"  {line}")


def forget(
    ctx: RunContext, entity: Entity, ids: Sequence[str], confirmed: int | None = None
) -> Forgotten:
    """Remove ids from the lake, then from what is published; check that nothing is left.

    Args:
        confirmed: how many ids somebody said there are; needed when there are many.

    Raises:
        InputError: others are being forgotten, or nobody said how many there are.
        DermError: an id was found again after everything was removed.
    """
    begun, gone = _begin(ctx, entity, ids, confirmed), pa.array(ids, pa.string())
    tables, lists = tables_of(ctx.lake, ctx.spec, entity), lists_of(ctx.spec, entity)
    found: dict[str, dict[str, int]] = {}
    for table in tables:
        for ds in ctx.lake.days(table.name):
            if removed := scrub_day(ctx.lake, table, ds, entity, gone, lists):
                found.setdefault(in_lake(table.name), {})[ds] = removed
    found |= forget_rows.forget_rows(ctx, entity, gone)
    # Also what an attempt before this one has rewritten.
    renamed = [(was, now) for was in begun.partitions if (now := _as_it_is(ctx, was)) != was]
    ctx.manifests.relabel(renamed)
    online, unproved = unpublish(ctx, entity, gone, {was.digest: now for was, now in renamed})
    served, unseen_there = forget_served(ctx.settings, entity, ids)
    for table in tables:
        if ctx.lake.exists(table.name):
            tidy(ctx.lake, table.name, orphan_hours=0)
    prove_gone(ctx.lake, tables, entity, gone, lists)
    leftovers.remove(ctx.root)
    masked = leftovers.mask(ctx.root, list(ids))
    excused = _excused(ctx.lake, tables, (*keys_of(entity), *lists))
    left, unseen = leftovers.look(ctx, entity, list(ids), excused)
    deletion_path(ctx.root).unlink()
    return Forgotten(
        entity=entity,
        ids=begun.ids,
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        unknown=tuple(i for i in begun.ids if i not in set(begun.known)),
        found=found,
        online={**online, **served},
        masked=masked,
        left=left,
        unproved=(*unproved, *unseen_there, *unseen),
    )


def _excused(
    lake: Lake, tables: Sequence[Table], columns: Sequence[str]
) -> Callable[[Trace], bool]:
    """Whether a trace in a table is something else than an id: a topic, an id of the other type.

    Tables were read by their columns already; here their other columns may be spelt alike.
    """
    names, root = {t.name for t in tables}, f"{lake.root.root}/"

    def excused(trace: Trace) -> bool:
        name, partition, _ = trace.file.removeprefix(root).partition("/ds=")
        if not partition or not trace.file.startswith(root):
            return False
        if name not in names:
            return name.startswith(("embeddings/", "counts/", "nodes/"))
        return trace.where not in (*columns, "bytes")

    return excused


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


def load_begun(path: Path) -> Begun:
    """The record of a forget that has begun.

    Raises:
        ManifestCorrupt: it cannot be read back.
    """
    try:
        return Begun.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ManifestCorrupt(
            "the record of a forget that has begun cannot be read",
            where=str(path),
            found=str(error),
            hint="remove the file and forget the same ids again; what the first attempt rewrote "
            "is stale then: derm status shows which days to run again",
        ) from error


def _begin(ctx: RunContext, entity: Entity, ids: Sequence[str], confirmed: int | None) -> Begun:
    """Record what may be rewritten, or find the record of an attempt that was killed.

    Raises:
        InputError: others were being forgotten, or there are many and nobody said how many.
    """
    digests = tuple(_digest(i) for i in ids)
    path = deletion_path(ctx.root)
    if path.exists():
        begun = load_begun(path)
        if (begun.entity, begun.ids) == (entity, digests):
            return begun
        raise InputError(
            "others are being forgotten, and that is not finished",
            where=str(path),
            expected=f"the {len(begun.ids)} {begun.entity} ids that were begun with",
            found=f"{len(digests)} {entity} ids",
            hint="run the interrupted command again first",
        )
    tables, lists = tables_of(ctx.lake, ctx.spec, entity), lists_of(ctx.spec, entity)
    wanted = pa.array(ids, pa.string())
    here = known(ctx.lake, tables, entity, wanted, lists) | published(ctx, entity, ids)
    confirm(len(ids), len(here), confirmed)
    begun = Begun(
        entity=entity,
        ids=digests,
        known=tuple(_digest(i) for i in sorted(here)),
        partitions=(
            *(ctx.lake.artifact(t.name, d) for t in tables for d in ctx.lake.days(t.name)),
            *forget_rows.recorded(ctx),
        ),
    )
    write_atomic(path, begun.model_dump_json(indent=2) + "\n")
    return begun


def _digest(entity_id: str) -> str:
    return hashlib.sha256(entity_id.encode()).hexdigest()


def _as_it_is(ctx: RunContext, was: Artifact) -> Artifact:
    if not was.table:
        return forget_rows.as_it_is(ctx, was)
    # Retention may have dropped the day since.
    kept = was.ds in ctx.lake.days(was.table)
    return ctx.lake.artifact(was.table, was.ds) if kept else was
