"""The report as it stands now, drawn from the manifests of a home; no lake is read."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths
from jobs.pipelines.catalog import pipeline_of
from jobs.recipes import recipe_of
from jobs.rendering.page import render_page
from jobs.rendering.state import read_state
from jobs.rendering.summary import DaySummary
from jobs.settings import Home

_DAYS_SHOWN = 60
_NOTHING = "<!doctype html><title>derm</title><p>No step of a published day has finished yet.</p>"


def live_page(root: Path, runs: Mapping[str, str]) -> str:
    """The page over the newest days of a home, unfinished ones included.

    Args:
        runs: where the run of a day is shown, by day.

    Raises:
        InputError: it is not a home.
        ManifestCorrupt: a manifest or the current release cannot be read.
    """
    home, store = Home.load(root), ManifestStore(HomePaths(root).manifests)
    state = read_state(root)
    # A day whose first step failed has no manifest, and is the one that somebody looks for. Days
    # before the first published one only feed the first training.
    known = {*store.days(), *(a.ds for a in state.attempts)}
    shown = [ds for ds in sorted(known) if ds >= home.start_ds][-_DAYS_SHOWN:]
    if not shown:
        return _NOTHING
    days = [DaySummary.of(ds, store.of_day(ds)) for ds in shown]
    return render_page(
        days, pipeline_of(home).names, recipe_of(home), state, runs, dt.datetime.now(dt.UTC)
    )
