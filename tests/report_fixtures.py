"""A home with finished days: real manifests of every step, with plausible numbers.

The numbers are smooth functions of day and upstream, so that charts look like charts and two runs
are equal. Nothing is trained: the manifests are what the runner would have written.
"""

import math
from pathlib import Path

from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.base import ENTITIES, Upstream, days_between, shift_day
from feature_store.contracts.digests import content_digest
from feature_store.contracts.manifests import (
    Artifact,
    Metrics,
    PublishedUpstream,
    Release,
    StepManifest,
)
from jobs.engine.code import code_digest
from jobs.engine.manifests import ManifestStore
from jobs.pipelines.declarations import Step
from jobs.recipes import Recipe, recipe
from jobs.settings import Home
from tests.pipelines import PIPELINE, UPSTREAMS

FIRST = "2025-03-01"
_SECONDS = {"train": 41.0, "infer": 18.0, "dedup": 6.0, "merge": 9.0, "index": 5.0, "ingest": 4.0}


def make_home(root: Path, days: int = 7) -> tuple[str, ...]:
    """A home whose first `days` days are finished and released; returns the days."""
    Home(dataset="simulated", recipe="toy", first_ds=FIRST, start_ds=FIRST).save(root)
    finished = days_between(FIRST, shift_day(FIRST, days - 1))
    for ds in finished:
        finish_day(root, ds)
    return finished


def finish_day(root: Path, ds: str, *, until: str | None = None) -> None:
    """Write the manifests of a day, of all steps or of those before `until`."""
    store = ManifestStore(root / "manifests")
    for step in PIPELINE.steps:
        if step.name == until:
            return
        for upstream in PIPELINE.upstreams_of(step):
            store.put(manifest_of(store, step, ds, upstream))
        if step.name == "release":
            publish(root, ds)


def manifest_of(
    store: ManifestStore, step: Step, ds: str, upstream: Upstream | None
) -> StepManifest:
    """What the runner would record for a step whose inputs are all there."""
    index = len(days_between(FIRST, ds)) - 1
    outputs = tuple(
        Artifact(
            name=name,
            ds=ds,
            digest=f"{step.name}-{ds}-{name}",
            rows=40_000,
            size=40 << 20,
            dropped=True,  # nothing but the record is here
        )
        for template in step.outputs
        for name in PIPELINE.expand(template, upstream)
    )
    return StepManifest(
        step=step.name,
        ds=ds,
        upstream=upstream,
        inputs=_inputs(store, step, ds, upstream),
        outputs=outputs,
        metrics=metrics_of(step.name, upstream, index),
        recipe=_recipe_digest(step, upstream),
        code=code_digest(step.name, "simulated", store.root.parent, _family(upstream)),
        started_at=f"{shift_day(ds, 1)}T01:{len(outputs):02d}:00+00:00",
        finished_at=f"{shift_day(ds, 1)}T01:30:00+00:00",
        duration_s=_SECONDS.get(step.name, 0.7) * (1 + 0.1 * math.sin(index)),
    )


def _family(upstream: Upstream | None) -> str:
    return PIPELINE.upstream(upstream).family if upstream else ""


def _recipe_digest(step: Step, upstream: Upstream | None) -> str:
    digest = _recipe_of(upstream).digest(step.recipe_parts)
    return content_digest(digest, "0") if step.seeded else digest


def _recipe_of(upstream: Upstream | None) -> Recipe:
    return recipe("toy").of(PIPELINE.upstream(upstream)) if upstream else recipe("toy")


def _inputs(
    store: ManifestStore, step: Step, ds: str, upstream: Upstream | None
) -> tuple[Artifact, ...]:
    found = []
    for ref in (r for r in step.inputs if not r.chosen):
        for name in PIPELINE.expand(ref.what, upstream):
            producer, of = PIPELINE.producer(name)
            manifest = store.get(producer.name, shift_day(ds, ref.offset), of)
            if manifest:
                found.append(manifest.output(name))
            elif not ref.optional:
                raise AssertionError(f"{step.name} of {ds} reads {name}, which is not there")
    return tuple(found)


def metrics_of(step: str, upstream: Upstream | None, index: int) -> Metrics:
    """The numbers of a step on the index-th day."""
    wave, shift = math.sin(index * 0.9), 0.06 if upstream == "cvr" else 0.0
    if step == "train":
        return {
            "rows": 120_000 + 9_000 * math.sin(index),
            "auc": 0.72 + shift + 0.02 * (1 - math.exp(-index / 3)) + 0.004 * wave,
            "ne": 0.91 - 0.03 * (1 - math.exp(-index / 3)) + shift / 3,
            "calibration": 1 + 0.03 * wave - shift / 2,
            "effective_rank": 21.0 + 2 * wave - 40 * shift,
            "loss": 0.41 - 0.05 * (1 - math.exp(-index / 2)) - shift,
            "snapshot_id": f"{shift_day(FIRST, index)}-{upstream}-4f1c9a2e",
            "space_id": f"{FIRST}-{upstream}-4f1c9a2e",
        }
    if step == "verify":
        return {k: v for e in ENTITIES for k, v in _health(e, index, shift, wave).items()}
    if step == "index":
        return {"pins": 18_000 + 400 * index, "recall_at_10": 0.975 + 0.005 * wave, "build_s": 4.2}
    if step == "publish":
        written = 40_000 if index < 2 else 9_000 + 700 * wave
        return {"users": 40_000 + 900 * index, "written": written, "removed": 40 * index,
                "bytes": written * 530, "rows_per_s": 310_000.0}  # fmt: skip
    return {}


def _health(entity: str, index: int, shift: float, wave: float) -> Metrics:
    updated = 0.3 + 0.03 * wave if index else 0.0
    new = 1.0 if index == 0 else 0.25 * math.exp(-index / 3)
    numbers: dict[str, float | int | str | None] = {
        "coverage_rows": min(0.93 + 0.008 * index, 1.0) - shift / 4,
        "coverage_entities": min(0.88 + 0.012 * index, 1.0) - shift / 4,
        "cosine": None if index == 0 else 0.985 - shift / 8 + 0.004 * wave,
        "cosine_updated": None if index == 0 else 0.95 - shift / 6 + 0.01 * wave,
        "intraday_cosine": 0.985 + 0.004 * wave,
        "updated": updated,
        "new": new,
        "carried": 1 - updated - new,
        "pruned": 0.0 if index < 3 else 0.012,
        "norm": 0.98 - 0.01 * wave,
        "effective_rank": 24 + wave - 40 * shift,
        "pool": 40_000 + 900 * index,
    }
    return {f"{k}_{entity}": v for k, v in numbers.items()}


def publish(root: Path, ds: str) -> Release:
    """Write the release of a day, and point readers at it."""
    release = Release(
        release_id=f"{ds}-9b2f40c1",
        ds=ds,
        upstreams=tuple(_published(u, ds) for u in UPSTREAMS),
        previous=None,
    )
    write_atomic(root / "releases" / f"{release.release_id}.json", release.model_dump_json())
    write_atomic(root / "releases" / "current", release.release_id + "\n")
    return release


def _published(upstream: Upstream, ds: str) -> PublishedUpstream:
    return PublishedUpstream(
        upstream=upstream,
        space_id=f"{FIRST}-{upstream}-4f1c9a2e",
        dim=64,
        dtype="float16",
        slot="a",
        users_prefix=f"derm:a:{upstream}:",
        users=41_300,
        pool_digest="pool",
        index_path=f"index/{upstream}/{ds}",
        index_digest="index",
        pins=18_400,
    )
