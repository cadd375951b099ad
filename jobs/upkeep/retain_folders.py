"""Snapshots and Pin indexes: which folders nothing needs any more.

A snapshot is what a repair continues from, so snapshots are kept as pools are. An index is needed
by the releases readers may see or return to, and by the day that builds on the newest. A folder
that no manifest names was made again since, or its step was killed before it was recorded and will
look for it: those go when they are old.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from feature_store.config import RetentionConfig
from feature_store.contracts.base import Upstream
from feature_store.lake.maintenance import newest, pools_to_keep
from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths

# Today's index may begin with yesterday's graph.
_INDEX_DAYS = 2


def expired_folders(
    home: Path,
    upstreams: Iterable[Upstream],
    config: RetentionConfig,
    protected: frozenset[str],
    *,
    scoring_days: int = 0,
) -> dict[str, tuple[Path, ...]]:
    """Folders to remove, by what they are: `snapshots/ctr`, `index/cvr`, ...

    Args:
        protected: days that readers, or an unfinished repair, need.
        scoring_days: newest days whose snapshots will score their day again when labels are final.
    """

    def snapshots(days: Collection[str]) -> frozenset[str]:
        return pools_to_keep(days, config) | newest(days, scoring_days)

    manifests = ManifestStore(HomePaths(home).manifests)
    expired: dict[str, tuple[Path, ...]] = {}
    for upstream in upstreams:
        for kind, step, names, keep in (
            # A draft of a snapshot is a checkpoint, which a training continues from.
            ("snapshots", "train", "[!.]*", snapshots),
            ("index", "index", "*", lambda days: newest(days, _INDEX_DAYS)),
        ):
            recorded = dict(_recorded(manifests, home, step, upstream))
            kept = _kept(recorded, keep, protected)
            root = home / kind / upstream
            found = [p for p in sorted(root.glob(names)) if p.is_dir() and p not in kept]
            known = set(recorded.values())
            gone = tuple(p for p in found if p in known or _is_old(p, config.orphan_hours))
            if gone:
                expired[f"{kind}/{upstream}"] = gone
    return expired


def _recorded(
    manifests: ManifestStore, home: Path, step: str, upstream: Upstream
) -> Iterator[tuple[str, Path]]:
    """The folder that each day's step recorded, by day."""
    for ds in manifests.days():
        if manifest := manifests.get(step, ds, upstream):
            yield ds, home / manifest.outputs[0].uri


def _kept(
    recorded: dict[str, Path],
    keep: Callable[[Collection[str]], frozenset[str]],
    protected: frozenset[str],
) -> set[Path]:
    there = [ds for ds, folder in recorded.items() if folder.exists()]
    return {recorded[ds] for ds in there if ds in keep(there) | protected}


def _is_old(folder: Path, hours: int) -> bool:
    return time.time() - folder.stat().st_mtime > hours * 3600
