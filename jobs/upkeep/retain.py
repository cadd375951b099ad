"""`derm retain`: drop what retention no longer keeps, clean the logs, free the disk.

Never touches what a release names, what a backfill on disk still needs, or the newest day.
"""

import argparse
import contextlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_store.config import RetentionConfig
from feature_store.contracts.artifacts import in_lake
from feature_store.contracts.base import ENTITIES, Entity, Upstream, days_between
from feature_store.contracts.datasets import DatasetSpec, counts_name
from feature_store.contracts.edges import graph_table, nodes_table
from feature_store.contracts.errors import ManifestCorrupt
from feature_store.contracts.manifests import Release
from feature_store.contracts.sealed import unsealed
from feature_store.contracts.tables import Table, daily_table, pool_table, raw_table
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.lake import Lake
from feature_store.lake.maintenance import drop_days, newest, pools_to_keep, tidy
from jobs.console import out
from jobs.datasets.registry import dataset_spec
from jobs.engine import attempts, locks, unfinished
from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths
from jobs.recipes import recipe_of
from jobs.settings import Home, Settings
from jobs.upkeep.retain_folders import expired_folders

_KEPT: dict[
    Callable[[Upstream, Entity], Table],
    Callable[[Collection[str], RetentionConfig], frozenset[str]],
] = {
    raw_table: lambda days, config: newest(days, config.raw_days),
    daily_table: lambda days, config: newest(days, config.daily_days),
    pool_table: pools_to_keep,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm retain`."""
    parser.add_argument("--dry-run", action="store_true", help="say what would go, do nothing")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Apply the retention of the home's recipe."""
    declared = Home.load(settings.home)
    chosen, lake = recipe_of(declared), Lake(settings.lake_root)
    removed: dict[str, int] = {}
    if args.dry_run:
        gone = _expired(declared, chosen.retention, lake, settings)
    else:
        with locks.alone(settings.home, "derm retain"):
            gone = _expired(declared, chosen.retention, lake, settings)
            _remove(gone, lake, settings)
            for name in lake.tables():
                removed[name] = tidy(lake, name, orphan_hours=chosen.retention.orphan_hours)
    _say(gone, removed, args)
    return 0


@dataclass(frozen=True, kw_only=True)
class _Expired:
    """What nothing keeps any more.

    Attributes:
        days: of tables, by name.
        folders: of snapshots and indexes, by kind.
        attempts: records of attempts that ended badly.
    """

    days: dict[str, tuple[str, ...]]
    folders: dict[str, tuple[Path, ...]]
    attempts: tuple[Path, ...]


def _expired(declared: Home, config: RetentionConfig, lake: Lake, settings: Settings) -> _Expired:
    home, protected = settings.home.resolve(), protected_days(settings, config)
    scoring = scoring_days(dataset_spec(declared.dataset, declared.source))
    names = [u.name for u in declared.upstreams]
    return _Expired(
        days=expired_days(lake, declared.upstreams, config, protected),
        folders=expired_folders(
            home,
            names,
            config,
            protected,
            scoring_days=scoring,
            rankers=[r.name for r in declared.rankers],
        ),
        attempts=expired_attempts(home, config, protected),
    )


def _remove(gone: _Expired, lake: Lake, settings: Settings) -> None:
    folders = [folder for found in gone.folders.values() for folder in found]
    _say_so(settings.home.resolve(), gone.days, folders)
    for name, days in gone.days.items():
        drop_days(lake, name, days)
    for folder in folders:
        shutil.rmtree(folder)
    for record in gone.attempts:
        record.unlink(missing_ok=True)
        # Days of which other records are left stay.
        with contextlib.suppress(OSError):
            record.parent.rmdir()


def _say(gone: _Expired, removed: Mapping[str, int], args: argparse.Namespace) -> None:
    if args.json:
        folders = {kind: [f.name for f in found] for kind, found in gone.folders.items()}
        said = {"dropped": gone.days, "folders": folders, "attempts": len(gone.attempts)}
        out(json.dumps(said | {"files_removed": removed}))
        return
    verb = "would go" if args.dry_run else "dropped"
    for name, days in gone.days.items():
        out(f"{name}: {len(days)} days {verb}: {' '.join(days)}")
    for kind, found in gone.folders.items():
        out(f"{kind}: {len(found)} folders {verb}: {' '.join(f.name for f in found)}")
    if gone.attempts:
        out(f"attempts: {len(gone.attempts)} records {verb}")
    out(f"{sum(removed.values())} files removed" if removed else "nothing was removed")


def expired_attempts(
    home: Path, config: RetentionConfig, protected: frozenset[str]
) -> tuple[Path, ...]:
    """Records of attempts that ended badly, of days whose pools are not kept day by day any more.

    Nobody will try those again: a repair that goes back so far has other steps to make first.
    """
    days = ManifestStore(HomePaths(home).manifests).days()
    kept = newest(days, config.daily_pools) | protected
    return tuple(
        attempts.path_of(home, tried)
        for tried in attempts.attempts(home)
        if tried.state != "running" and days and tried.ds < max(days) and tried.ds not in kept
    )


def _say_so(home: Path, days: Mapping[str, Sequence[str]], folders: Sequence[Path]) -> None:
    """Record what is about to be removed, so that nobody takes it for lost."""
    partitions = {(in_lake(name), ds) for name, dropped in days.items() for ds in dropped}
    uris = {folder.relative_to(home).as_posix() for folder in folders}
    ManifestStore(HomePaths(home).manifests).mark_dropped(
        lambda a: (a.name, a.ds) in partitions or a.uri in uris
    )


def scoring_days(spec: DatasetSpec) -> int:
    """Newest days whose snapshots score their day again, when its labels are final.

    The day that matures with the newest one was scored by the snapshot of the day before it.
    """
    return spec.attribution_days + 2 if spec.attribution_days else 0


def expired_days(
    lake: Lake,
    upstreams: Collection[UpstreamDeclaration],
    config: RetentionConfig,
    protected: frozenset[str],
) -> dict[str, tuple[str, ...]]:
    """The days of each table of embeddings or counts, and of the graph, that nothing keeps."""
    expired: dict[str, tuple[str, ...]] = {}
    for upstream in upstreams:
        for entity in upstream.entities:
            days = {t: lake.days(t(upstream.name, entity).name) for t in _KEPT}
            for table, keep in _KEPT.items():
                gone = set(days[table]) - keep(days[table], config) - protected
                if gone:
                    expired[table(upstream.name, entity).name] = tuple(sorted(gone))
    kept = dict.fromkeys(map(counts_name, ENTITIES), config.counts_days)
    nodes = [nodes_table(u.name).name for u in upstreams if u.reads == "edges"]
    kept |= dict.fromkeys((graph_table().name, *nodes), config.daily_pools)
    for name, number in kept.items():
        there = lake.days(name)
        if gone := set(there) - newest(there, number) - protected:
            expired[name] = tuple(sorted(gone))
    return expired


def protected_days(settings: Settings, config: RetentionConfig) -> frozenset[str]:
    """Days that readers may see or return to, and those from the base of an unfinished backfill on.

    After rollbacks the pointer may name a release that is not among the newest.

    Raises:
        ManifestCorrupt: a release cannot be read, so what it needs is not known.
    """
    releases = {r.release_id: r for r in _releases(settings)}
    days = sorted({r.ds for r in releases.values()})[-config.releases :]
    pointer = settings.paths.pointer
    current = releases.get(pointer.read_text().strip()) if pointer.exists() else None
    for release in (current, releases.get(current.previous or "") if current else None):
        days += [release.ds] if release else []
    if repair := unfinished.load(settings.home):
        plan = repair.plan
        days += days_between(plan.base or plan.first, plan.last)
    return frozenset(days)


def _releases(settings: Settings) -> list[Release]:
    """Every release recorded below the home; the online store is not asked."""
    found = []
    for path in sorted(settings.paths.releases.glob("*.json")):
        try:
            found.append(Release.model_validate_json(unsealed(path)))
        except (ValueError, ManifestCorrupt) as error:
            raise ManifestCorrupt(
                "a release cannot be read, so what it needs is not known",
                where=str(path),
                found=str(error),
            ) from error
    return found
