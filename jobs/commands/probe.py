"""`derm probe`: one look at the store, the disk, the steps at work and the day that is due.

Airflow does it every ten minutes. What it finds is an error with the command that repairs it.
"""

import argparse
import logging

from feature_store.contracts.errors import GuardFailed
from jobs.console import out
from jobs.engine import findings
from jobs.engine.findings import Probed
from jobs.engine.runner import open_context
from jobs.services import redis
from jobs.settings import Settings
from jobs.steps import probing

log = logging.getLogger("derm")


def configure(parser: argparse.ArgumentParser) -> None:
    """It has no arguments: it looks at everything."""


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Look, record it, and say what was found.

    Raises:
        GuardFailed: something is wrong; the most urgent finding, and the names of the others.
    """
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    ctx = open_context(settings, "")
    if redis.died(settings.home) and not settings.redis_url.get_secret_value():
        log.warning("the embedded redis-server was gone: it is started again with its last save")
        redis.ensure_redis(settings)
    probed = probing.record(ctx)
    if args.json:
        out(probed.model_dump_json())
    if probed.findings:
        raise _error(probed)
    if not args.json:
        out(_line(probed))
    return 0


def _error(probed: Probed) -> GuardFailed:
    first, *others = sorted(probed.findings, key=lambda f: findings.KINDS.index(f.kind))
    also = "".join(f"; also: {f.what}" for f in others)
    return GuardFailed(
        first.what + also,
        where=first.where,
        expected=first.expected,
        found=f"{first.found}{', ' if first.found else ''}since {first.since}",
        hint=first.hint,
    )


def _line(probed: Probed) -> str:
    store = probed.store
    seen = (
        f"{store.release_id}: {store.keys} keys, {store.compared} sampled users as in the lake"
        if store
        else "no store to look at"
    )
    return f"{seen}; {probed.disk_free >> 30} GiB free; nothing is wrong"
