"""`derm compare OTHER`: what differs between this home and another one, down to the bits.

For a home that was upgraded, moved, recomputed on another machine, or repaired beside the original:
every partition of the lake, the tensors of every snapshot, the published users byte by byte, and
what the Pin indexes find. Names of snapshots and spaces are left out: they follow from digests of
configurations, and a later version may name the same tensors differently.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.contracts.artifacts import Snapshot
from feature_store.contracts.errors import DermError, InputError
from feature_store.contracts.manifests import PublishedUpstream
from feature_store.contracts.tables import pool_table
from feature_store.index.index import PinIndex
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from feature_store.lake.storage import open_parquet
from feature_store.online.store import open_store
from jobs.console import out
from jobs.engine.manifests import ManifestStore
from jobs.engine.snapshots import SnapshotStore
from jobs.paths import HomePaths
from jobs.pipelines.catalog import pipeline_of
from jobs.rendering.published import read_published
from jobs.services.redis import ensure_redis
from jobs.settings import Home, Settings

_NAMES = ("snapshot_id", "space_id")
# A record of what ran and when: no two runs write the same.
_RECORDS = ("runs",)
_QUERIES, _NEIGHBOURS = 1000, 10


@dataclass(frozen=True, slots=True)
class Compared:
    """One thing that both homes may hold.

    Attributes:
        found: "equal", or how it differs.
    """

    what: str
    found: str

    @property
    def equal(self) -> bool:
        """Whether both hold the same."""
        return self.found == "equal"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm compare`."""
    parser.add_argument("other", type=Path, metavar="HOME", help="the home to compare with")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Print what differs; exit code 1 when something does.

    Raises:
        InputError: one of the two is no home.
    """
    mine, other = Home.load(settings.home), Home.load(args.other)
    if mine.upstreams != other.upstreams:
        raise InputError(
            "the homes have other upstreams",
            expected=" ".join(u.name for u in mine.upstreams),
            found=" ".join(u.name for u in other.upstreams),
        )
    theirs = settings.model_copy(update={"home": args.other, "lake": ""})
    found = list(compare(settings, theirs))
    different = [c for c in found if not c.equal]
    if args.json:
        body = [asdict(c) for c in different]
        out(json.dumps({"compared": len(found), "different": body}))
    else:
        for c in different:
            out(f"{c.what}: {c.found}")
        out(f"{len(found)} compared, {len(different)} different")
    return 1 if different else 0


def compare(mine: Settings, other: Settings) -> Iterator[Compared]:
    """Everything that both homes may hold, one by one."""
    yield from _compare_lakes(Lake(mine.lake_root), Lake(other.lake_root))
    yield from _compare_snapshots(mine.home, other.home)
    yield from _compare_published(mine, other)


def _compare_lakes(mine: Lake, other: Lake) -> Iterator[Compared]:
    for name in sorted({*mine.tables(), *other.tables()} - set(_RECORDS)):
        here, there = set(mine.days(name)), set(other.days(name))
        for ds in sorted(here | there):
            what = f"{name} of {ds}"
            if ds not in here & there:
                yield Compared(what, f"only in the {'first' if ds in here else 'second'}")
            else:
                yield Compared(what, _compare_day(mine, other, name, ds))


def _compare_day(mine: Lake, other: Lake, name: str, ds: str) -> str:
    """How a partition differs, a bucket at a time."""
    files, theirs = _groups(mine, name, ds), _groups(other, name, ds)
    if len(files) != len(theirs):
        return f"{len(files)} buckets, and {len(theirs)}"
    for bucket, paths in files.items():
        here, there = _rows(paths), _rows(theirs.get(bucket, ()))
        if not here.equals(there):
            columns = [c for c in here.column_names if c not in there.column_names]
            columns += [
                c
                for c in here.column_names
                if c in there.column_names and not here[c].equals(there[c])
            ]
            return f"{len(here)} rows, and {len(there)}; columns {' '.join(columns) or 'added'}"
    return "equal"


def _groups(lake: Lake, name: str, ds: str) -> dict[int, tuple[str, ...]]:
    bucketed = "buckets" in lake.properties(name)
    return lake.bucket_files(name, ds) if bucketed else {0: lake.files(name, ds)}


def _rows(paths: tuple[str, ...]) -> pa.Table:
    """The rows of files without the names of lineages, sorted where there are several files."""
    parts = []
    for path in paths:
        with open_parquet(path) as file:
            kept = [c for c in file.schema_arrow.names if c not in _NAMES]
            parts.append(file.read(columns=kept))
    if not parts:
        return pa.table({})
    rows = pa.concat_tables(parts)
    return rows.sort_by(rows.column_names[0]) if len(parts) > 1 else rows


def _compare_snapshots(mine: Path, other: Path) -> Iterator[Compared]:
    manifests, theirs = (
        ManifestStore(HomePaths(mine).manifests),
        ManifestStore(HomePaths(other).manifests),
    )
    for upstream in pipeline_of(Home.load(mine)).names:
        stores = SnapshotStore(mine, upstream), SnapshotStore(other, upstream)
        for ds in sorted({*manifests.days(), *theirs.days()}):
            recorded = manifests.get("train", ds, upstream), theirs.get("train", ds, upstream)
            if not any(recorded):
                continue
            what = f"snapshot of {upstream} of {ds}"
            if not all(recorded):
                yield Compared(what, "only in one of them")
                continue
            try:
                here, there = (
                    store.of(manifest.output(Snapshot(upstream))).files
                    for store, manifest in zip(stores, recorded, strict=True)
                    if manifest
                )
            except DermError as error:
                yield Compared(what, f"cannot be read: {error}")
                continue
            changed = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
            yield Compared(what, f"other tensors in {' '.join(changed)}" if changed else "equal")


def _compare_published(mine: Settings, other: Settings) -> Iterator[Compared]:
    here, there = read_published(mine.home), read_published(other.home)
    if here is None or there is None:
        same = here is None and there is None
        yield Compared("the release", "equal" if same else "only one of them has one")
        return
    if here.release.ds != there.release.ds:
        yield Compared("the release", f"of {here.release.ds}, and of {there.release.ds}")
        return
    theirs = {e.upstream: e for e in there.release.upstreams}
    for entry in here.release.upstreams:
        yield _compare_users(mine, other, entry, theirs[entry.upstream], here.release.ds)
        yield _compare_indexes(mine, other, entry, theirs[entry.upstream], here.release.ds)


def _compare_users(
    mine: Settings, other: Settings, here: PublishedUpstream, there: PublishedUpstream, ds: str
) -> Compared:
    """The values in both stores of everybody in the first one's pool."""
    stores = open_store(ensure_redis(mine)), open_store(ensure_redis(other))
    lake, different, users = Lake(mine.lake_root), 0, 0
    for paths in lake.bucket_files(pool_table(here.upstream, "user").name, ds).values():
        for path in paths:
            with open_parquet(path) as file:
                ids = file.read(columns=["entity_id"])["entity_id"].to_pylist()
            values = stores[0].read(here.users_prefix, ids)
            others = stores[1].read(there.users_prefix, ids)
            users += len(ids)
            different += sum(a != b for a, b in zip(values, others, strict=True))
    what = f"published users of {here.upstream}"
    if here.users != there.users:
        return Compared(what, f"{here.users}, and {there.users}")
    return Compared(what, f"{different} of {users} values differ" if different else "equal")


def _compare_indexes(
    mine: Settings, other: Settings, here: PublishedUpstream, there: PublishedUpstream, ds: str
) -> Compared:
    """What both indexes find near a sample of users."""
    what = f"neighbours in the Pin index of {here.upstream}"
    indexes = PinIndex(mine.home / here.index_path), PinIndex(other.home / there.index_path)
    lake, name = Lake(mine.lake_root), pool_table(here.upstream, "user").name
    parts: list[pa.Table] = []
    for paths in lake.bucket_files(name, ds).values():
        for path in paths:
            with open_parquet(path) as file:
                parts.append(file.read(columns=["embedding"]).slice(0, _QUERIES))
        if sum(len(p) for p in parts) >= _QUERIES:
            break
    vectors = unpack(pa.concat_tables(parts)["embedding"], here.dim)[:_QUERIES]
    if not len(vectors) or not all(map(len, indexes)):
        same = len(indexes[0]) == len(indexes[1])
        return Compared(what, "equal" if same else f"{len(indexes[0])}, and {len(indexes[1])} Pins")
    first, second = (i.search(vectors.astype(np.float32), _NEIGHBOURS) for i in indexes)
    other_ids = int((np.asarray(first.ids) != np.asarray(second.ids)).any(axis=1).sum())
    other_scores = int((first.scores != second.scores).any(axis=1).sum())
    if other_ids or other_scores:
        return Compared(
            what, f"of {len(vectors)} users, {other_ids} find others, {other_scores} score others"
        )
    return Compared(what, "equal")
