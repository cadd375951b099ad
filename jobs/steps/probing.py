"""One look at the store, the disk, the steps at work and the day that is due.

The audit of a day records one, and `derm probe` between days. It takes about a second, and changes
nothing but `probe.json` and `metrics/derm.prom` of the home.
"""

import contextlib
import datetime as dt
import logging
import shutil
from collections.abc import Iterator

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import DermError, ManifestCorrupt
from feature_store.contracts.manifests import Release, StepManifest
from feature_store.online.store import open_store
from jobs.engine import attempts, findings, spaces
from jobs.engine.context import RunContext
from jobs.engine.findings import Finding, Probed, StoreNumbers
from jobs.rendering.exposition import write_metrics
from jobs.rendering.published import read_published
from jobs.services import airflow, redis
from jobs.settings import Settings
from jobs.steps.audit_users import check_held, compare, has_pool, lost, lost_way_back

log = logging.getLogger("derm")

DAILY = "derm_daily"
_BUCKETS, _ROWS, _EVERY_S = 2, 64, 600
_LEAST_FREE = 256 << 20
_DAYS_OF_ROOM = 3
_DUE = dt.timedelta(hours=6)
_BEGUN_BY = dt.timedelta(minutes=30)
_KEEPS_UP = dt.timedelta(days=2)
_RELEASES = 14


def record(ctx: RunContext, *, found: DermError | None = None) -> Probed:
    """Look and write down what was found, for page and metrics; a full disk is only said.

    Args:
        found: what a more thorough look at the store has found just now.
    """
    probed = look(ctx, dt.datetime.now(dt.UTC))
    if found is not None and probed.of("store") is None:
        probed = probed.model_copy(
            update={"findings": (_finding("store", found), *probed.findings)}
        )
    try:
        findings.save(ctx.root, probed)
        write_metrics(ctx.root)
    except OSError as error:
        log.warning("what was found could not be recorded: %s", error)
    return findings.load(ctx.root) or probed


def look(ctx: RunContext, now: dt.datetime) -> Probed:
    """Look at everything; starts nothing, writes nothing."""
    release, problem = None, None
    try:
        published = read_published(ctx.root)
        release = published.release if published else None
    except ManifestCorrupt as error:
        problem = _finding("store", error)
    numbers, lost_users = _store(ctx, release, now) if release else (None, problem)
    free, needed = shutil.disk_usage(ctx.root).free, _needed(ctx)
    paused = _paused(ctx.settings)
    found = (lost_users, _disk(ctx, free, needed), *_steps(ctx, now), *_days(ctx, now, paused))
    return Probed(
        at=now.isoformat(timespec="seconds"),
        store=numbers,
        disk_free=free,
        disk_needed=needed,
        paused=paused,
        findings=tuple(f for f in found if f),
    )


def _store(
    ctx: RunContext, release: Release, now: dt.datetime
) -> tuple[StoreNumbers | None, Finding | None]:
    """The numbers of the online store, and what it has lost."""
    url = ctx.settings.redis_url.get_secret_value() or redis.embedded_url(ctx.root)
    if url is None:
        if not redis.died(ctx.root):
            return None, None  # stopped in order: it starts with the next command that needs it
        return None, Finding(
            kind="store",
            what="the embedded redis-server does not answer, and nobody stopped it",
            where=str(ctx.paths.redis / "server.log"),
            hint="derm restore",
        )
    view = ctx.at(release.ds)
    compared = missing = different = 0
    try:
        store = open_store(url, ctx.recipe.publishing)
        held = check_held(store, release)
        # A pool that was made again since tells nothing about what was published from another.
        for entry in (e for e in release.upstreams if has_pool(view, release, e)):
            turn = int(now.timestamp()) // _EVERY_S
            sample = compare(view, store, entry, buckets=_BUCKETS, rows=_ROWS, turn=turn)
            compared += sample.compared
            missing += sample.missing
            different += sample.different
        numbers = StoreNumbers(
            release_id=release.release_id,
            keys=held.keys,
            least_keys=held.least_keys,
            compared=compared,
            missing=missing,
            different=different,
        )
        if missing or different:
            found = f"of {compared} sampled users {missing} missing, {different} different"
            return numbers, _finding("store", lost(store, release, found))
        if gone := lost_way_back(ctx, store, release, turn=int(now.timestamp()) // _EVERY_S):
            return numbers, _finding("store", gone)
    except DermError as error:
        return None, _finding("store", error)
    return numbers, None


def _needed(ctx: RunContext) -> int:
    """Bytes that three days take, from what the newest finished day wrote."""
    for ds in reversed(ctx.manifests.days()):
        if _release(ctx, ds) is None:
            continue
        with contextlib.suppress(ManifestCorrupt):
            wrote = sum(a.size for m in ctx.manifests.of_day(ds) for a in m.outputs)
            return max(_LEAST_FREE, _DAYS_OF_ROOM * wrote)
    return _LEAST_FREE


def _release(ctx: RunContext, ds: str) -> StepManifest | None:
    """The record of a day's release; None without one, or when it cannot be read."""
    try:
        return ctx.manifests.get("release", ds, None)
    except ManifestCorrupt:
        return None


def _disk(ctx: RunContext, free: int, needed: int) -> Finding | None:
    if free >= needed:
        return None
    return Finding(
        kind="disk",
        what="the disk of the home is nearly full",
        where=str(ctx.root),
        expected=f"{needed >> 20} MiB free: room for {_DAYS_OF_ROOM} days",
        found=f"{free >> 20} MiB",
        hint="derm retain",
    )


def _steps(ctx: RunContext, now: dt.datetime) -> Iterator[Finding]:
    """The first step that takes far longer than it did, or whose process is gone."""
    for attempt in attempts.attempts(ctx.root):
        hangs = attempt.state == "running" and attempt.seconds(now) > attempt.limit_s
        if hangs or attempt.state == "killed":
            what = "is still running" if hangs else "was killed"
            yield Finding(
                kind="step",
                what=f"{attempt.name} of {attempt.ds} {what}",
                where=f"process {attempt.pid} on {attempt.host}, begun {attempt.started_at}",
                expected=f"an end within {attempt.limit_s / 60:.0f} min",
                found=f"{attempt.seconds(now) / 60:.0f} min",
                hint="clear its task in Airflow: it is stopped and begins again; without Airflow: "
                f"kill {attempt.pid}, then derm run --from {attempt.ds} --to {attempt.ds}"
                if hangs
                else f"derm run --from {attempt.ds} --to {attempt.ds}",
            )
            return


def _days(ctx: RunContext, now: dt.datetime, paused: bool | None) -> Iterator[Finding]:
    """A day that ended and waits because the DAG is paused, or is late for another reason."""
    ds, ended = _waiting(ctx, now)
    if not ds or not _keeps_up(ctx):
        return
    if paused and now - ended > _BEGUN_BY:
        yield Finding(
            kind="paused",
            what=f"{DAILY} is paused, and {ds} waits",
            where="Airflow",
            expected="the DAG unpaused, once a failed day is repaired",
            hint=f"unpause {DAILY}; derm status names a day that failed",
        )
    if now - ended > _DUE:
        begun = ds in ctx.manifests.days() or bool(attempts.of_day(ctx.root, ds))
        yield Finding(
            kind="late",
            what=f"{ds} is not published, and was due at {ended + _DUE:%Y-%m-%d %H:%M} UTC",
            found="" if begun else f"no step of it has begun: is {DAILY} paused, the scheduler up?",
            hint="derm status says what it waits for",
        )


def _waiting(ctx: RunContext, now: dt.datetime) -> tuple[str, dt.datetime]:
    """The first day that has ended and is not released, and when it ended; none: an empty name."""
    released = [ds for ds in ctx.manifests.days() if _release(ctx, ds)]
    first = spaces.load(ctx.root).first_daily(ctx.home)
    ds = max(first, shift_day(released[-1], 1)) if released else first
    ended = dt.datetime.fromisoformat(shift_day(ds, 1)).replace(tzinfo=dt.UTC)
    beyond = bool(ctx.settings.last_ds) and ds > ctx.settings.last_ds
    return ("" if beyond or ended > now else ds), ended


def _keeps_up(ctx: RunContext) -> bool:
    """Whether days are published as they end: a home of history is late by nature."""
    for ds in ctx.manifests.days()[-_RELEASES:]:
        released = _release(ctx, ds)
        if released is None:
            continue
        ended = dt.datetime.fromisoformat(shift_day(ds, 1)).replace(tzinfo=dt.UTC)
        if dt.datetime.fromisoformat(released.finished_at) - ended < _KEEPS_UP:
            return True
    return False


def _paused(settings: Settings) -> bool | None:
    """Whether the daily DAG of this home's Airflow is paused; None where there is none to ask."""
    if not airflow.is_running(settings):
        return None
    try:
        return airflow.connect(settings).is_paused(DAILY)
    except DermError:
        return None


def _finding(kind: findings.Kind, error: DermError) -> Finding:
    return Finding(
        kind=kind,
        what=error.what,
        where=error.where,
        expected=error.expected,
        found=error.found,
        hint=error.hint,
    )
