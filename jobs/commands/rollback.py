"""`derm rollback`: readers go back to the release before the current one, in one step."""

import argparse

from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.console import out
from jobs.engine import locks
from jobs.engine.runner import open_context
from jobs.pipelines import catalog
from jobs.services.redis import ensure_redis, persist
from jobs.settings import Home, Settings
from jobs.steps import probing


def configure(parser: argparse.ArgumentParser) -> None:
    """It has no arguments: there is one way back."""


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Flip the pointer back and say what readers see now.

    Raises:
        StoreError: a publish is under way: it may be about to write the slot that was checked here.
    """
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    with locks.slots(settings.home, *pipeline.published):
        releases = Releases(settings.home, open_store(ensure_redis(settings)))
        before = releases.current()
        release = releases.roll_back()
    persist(settings)
    probing.record(open_context(settings, release.ds))
    if args.json:
        out(release.model_dump_json())
    else:
        left, day = (before.release_id, before.ds) if before else ("nothing", "DAY")
        out(f"readers see {release.release_id} ({release.ds}) instead of {left}")
        out(f"to go forward again: derm release --ds {day} --force")
    return 0
