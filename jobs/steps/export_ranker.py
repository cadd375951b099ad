"""Export a ranker: the day's ranker and its calibration in one folder, for whoever serves it.

Reads the ranker and its calibration. Writes `rankers/exports/<name>/<id>/` (safetensors and JSON,
no pickle), then its name into `rankers/exports/<name>/current`. A ranker of
all surfaces also leaves a program for each of them in `surfaces/`. A refused day has no export, and
the one before it stays current. Before the pointer moves, old and new score some rows of the day
side by side (`shadow_gap` and its like among the metrics).
"""

import shutil
from pathlib import Path

from feature_store.contracts.artifacts import Calibrated, Exported, RankerWeights
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.digests import content_digest
from feature_store.contracts.manifests import Artifact
from jobs.engine.context import Outcome, RunContext
from jobs.engine.presence import bytes_in
from jobs.ranking import reading
from jobs.ranking import run as runs
from jobs.steps.calibrate import FILE
from models.rankers import calibration, export, programs


def run(ctx: RunContext) -> Outcome:
    """Write the export, then point to it.

    Raises:
        MissingInput: the ranker is gone.
        ManifestCorrupt: a file of it is damaged.
    """
    name, store = ctx.own_ranker.name, reading.store(ctx)
    ranker, calibrated = (ctx.artifact(x) for x in (RankerWeights(name), Calibrated(name)))
    manifest = store.of(ranker)
    description = export.describe(
        name=name,
        ds=ctx.ds,
        config=reading.config_of(ctx),
        inputs=reading.inputs(ctx, "with"),
        surfaces=ctx.spec.surfaces,
        spaces=reading.spaces(ctx),
    )
    digest = content_digest(ranker.digest, calibrated.digest, description.model_dump_json())
    exports = ctx.paths.ranker("exports", name)
    folder, draft = exports / f"{ctx.ds}-{digest}", exports / f".{ctx.ds}-{digest}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    weights = store.read(manifest, reading.weights_of("with")[0])
    export.write(draft, description, weights, calibration.read(ctx.root / calibrated.uri / FILE))
    surfaces = programs.write(draft)
    pointer = ctx.paths.ranker_pointer(name)
    beside = runs.shadow(ctx, draft, exports / _current(pointer)) if _current(pointer) else {}
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
    _point_to(ctx, folder.name)
    artifact = Artifact(
        name=Exported(name),
        ds=ctx.ds,
        digest=digest,
        rows=1,
        size=bytes_in(folder),
        uri=folder.relative_to(ctx.root).as_posix(),
    )
    return Outcome(
        outputs=(artifact,), metrics={"export": folder.name, "programs": surfaces, **beside}
    )


def _point_to(ctx: RunContext, export_name: str) -> None:
    """Make an export current, unless that of a later day is."""
    pointer = ctx.paths.ranker_pointer(ctx.own_ranker.name)
    if _current(pointer)[:10] <= ctx.ds:
        write_atomic(pointer, export_name + "\n")


def _current(pointer: Path) -> str:
    """The export in use; none where there is no pointer, or its folder is gone."""
    named = pointer.read_text().strip() if pointer.exists() else ""
    return named if named and (pointer.parent / named).is_dir() else ""
