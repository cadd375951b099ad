"""The newest numbers of the pipeline as Prometheus text.

Written for the textfile collector of a node exporter, or any scraper that can run a command:
the pipeline is a batch, so there is no process of it to scrape.
"""

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.manifests import StepManifest
from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths
from jobs.pipelines import catalog
from jobs.rendering.state import HomeState, read_state
from jobs.rendering.state_metrics import add_state
from jobs.settings import Home

# Numbers of rankers: a home that ranks nothing has none.
ONLY_WHEN_RANKED = ("derm_evaluate_", "derm_calibrate_", "derm_ranker_")
_ENTITY = re.compile(r"(?P<name>\w+)_(?P<entity>user|pin)")


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One number of a step; upstream and entity type are '' where there is none."""

    name: str
    step: str
    upstream: str
    entity: str
    value: float


def write_metrics(root: Path) -> None:
    """Write `metrics/derm.prom` below the home, for a textfile collector."""
    write_exposition(
        HomePaths(root).metrics, exposition(list(newest_manifests(root)), read_state(root))
    )


def write_exposition(path: Path, text: str) -> None:
    """Write counts that a collector, which is another user, may read: no id is among them."""
    write_atomic(path, text)
    path.chmod(0o644)


def newest_manifests(root: Path) -> Iterator[StepManifest]:
    """The newest manifest of every step and upstream of a home."""
    pipeline, store = catalog.pipeline_of(Home.load(root)), ManifestStore(HomePaths(root).manifests)
    days = tuple(reversed(store.days()))
    for step in (*pipeline.steps, *pipeline.ranking):
        for upstream in pipeline.upstreams_of(step):
            found = (store.get(step.name, ds, upstream) for ds in days)
            newest = next((m for m in found if m), None)
            if newest:
                yield newest


def samples(manifest: StepManifest) -> Iterator[MetricSample]:
    """The numbers of one manifest; a trailing `_user` or `_pin` of a name becomes a label."""
    upstream = manifest.upstream or ""
    for name, value in manifest.metrics.items():
        if isinstance(value, int | float):
            match = _ENTITY.fullmatch(name)
            base, entity = (match["name"], match["entity"]) if match else (name, "")
            yield MetricSample(base, manifest.step, upstream, entity, float(value))


def exposition(manifests: list[StepManifest], state: HomeState) -> str:
    """Prometheus text of the numbers, the durations, which day readers see, and what is wrong.

    No age is among them: the file is read long after it was written, and an age would stand still.

    Args:
        state: with what readers see, which after a rollback is not the newest release.
    """
    registry = CollectorRegistry()
    labels = ("step", "upstream")
    duration = Gauge("derm_step_duration_seconds", "Wall time.", labels, registry=registry)
    finished = Gauge("derm_step_finished_timestamp", "Unix time.", labels, registry=registry)
    gauges: dict[str, Gauge] = {}
    for manifest in manifests:
        who = (manifest.step, manifest.upstream or "")
        duration.labels(*who).set(manifest.duration_s)
        finished.labels(*who).set(dt.datetime.fromisoformat(manifest.finished_at).timestamp())
        for sample in samples(manifest):
            name = f"derm_{sample.step}_{sample.name}"
            if name not in gauges:
                text = f"{sample.name} as measured by {sample.step}, newest day"
                gauges[name] = Gauge(name, text, ("upstream", "entity"), registry=registry)
            gauges[name].labels(sample.upstream, sample.entity).set(sample.value)
    if state.published:
        text = "Unix time at which the day that readers see ended; alerts count from it."
        end = Gauge("derm_release_day_end_timestamp", text, registry=registry)
        end.set(_end_of(state.published.release.ds))
    add_state(registry, state)
    newest = {m.upstream: m.ds for m in manifests if m.step == "export_ranker"}
    if newest:
        text = "Unix time at which the newest day ended that a ranker has learned."
        learned = Gauge("derm_ranker_day_end_timestamp", text, ("upstream",), registry=registry)
        for ranker, ds in newest.items():
            learned.labels(ranker).set(_end_of(ds))
    return generate_latest(registry).decode()


def _end_of(ds: str) -> float:
    """The Unix time at which a day ends."""
    day = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
    return (day + dt.timedelta(1)).timestamp()
