"""Keeping the lake small: which days to keep, dropping the others, vacuum, logs."""

import datetime as dt
from collections.abc import Collection, Iterable

from deltalake import CommitProperties
from deltalake.exceptions import CommitFailedError

from feature_store.config import RetentionConfig
from feature_store.contracts.errors import CommitConflict
from feature_store.lake.lake import Lake


def pools_to_keep(days: Collection[str], config: RetentionConfig) -> frozenset[str]:
    """Days whose pool is kept: the newest ones, then each Sunday's for some weeks more."""
    if not days:
        return frozenset()
    newest = max(dt.date.fromisoformat(d) for d in days)
    weekly = config.daily_pools + 7 * config.weekly_pools

    def kept(day: dt.date) -> bool:
        age = (newest - day).days
        return age < config.daily_pools or (age < weekly and day.isoweekday() == 7)

    return frozenset(d for d in days if kept(dt.date.fromisoformat(d)))


def newest(days: Collection[str], count: int) -> frozenset[str]:
    """The days that lie less than `count` days before the newest one."""
    if not days:
        return frozenset()
    last = dt.date.fromisoformat(max(days))
    return frozenset(d for d in days if (last - dt.date.fromisoformat(d)).days < count)


def drop_days(lake: Lake, name: str, days: Iterable[str]) -> tuple[str, ...]:
    """Take days out of a table, in one transaction. Their files stay until vacuum.

    Raises:
        CommitConflict: another writer committed first; no day was dropped.
    """
    gone = tuple(sorted(set(days)))
    if not gone:
        return ()
    listed = ", ".join(f"'{d}'" for d in gone)
    try:
        lake.open(name).delete(
            f"ds IN ({listed})", commit_properties=CommitProperties(max_commit_retries=0)
        )
    except CommitFailedError as error:
        raise CommitConflict(
            f"another writer changed {name} while days were being dropped",
            where=lake.path(name),
            found=str(error),
            hint="run it again",
        ) from error
    return gone


def tidy(lake: Lake, name: str, *, orphan_hours: int) -> int:
    """Write a checkpoint, clean the log, remove files that nothing refers to.

    There is nothing to compact: a day, or a bucket of it, is one file.

    Args:
        orphan_hours: files younger than this are left alone; a running step may have staged them.

    Returns:
        Files removed.
    """
    handle = lake.open(name)
    handle.create_checkpoint()
    handle.cleanup_metadata()
    removed = handle.vacuum(
        retention_hours=orphan_hours,
        dry_run=False,
        enforce_retention_duration=False,
        full=True,
    )
    return len(removed)
