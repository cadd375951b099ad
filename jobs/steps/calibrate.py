"""Calibrate: from logits to probabilities, a scale and a shift for each surface and task.

Reads how often each logit of the day was right, said before the day was learned, and yesterday's
calibration, which it stays near where the day has little to say. Writes the new one. Measures, with
yesterday's calibration, how predicted and observed positives of the day compare.
"""

from feature_store.contracts.artifacts import Calibrated, Evaluated
from feature_store.contracts.digests import file_sha256
from feature_store.contracts.manifests import Artifact, Metrics
from jobs.engine.context import Outcome, RunContext
from jobs.ranking import reading
from models.rankers import calibration
from models.training.checkpoint import read_tensors

FILE = "calibration.safetensors"


def run(ctx: RunContext) -> Outcome:
    """Fit the calibration of the day; of a ranker's first day it leaves logits as they are."""
    name, surfaces = ctx.own_ranker.name, len(ctx.spec.surfaces)
    tasks = reading.inputs(ctx, "without").tasks
    recorded = ctx.previous(Calibrated(name))
    before = calibration.untouched(len(tasks), surfaces)
    if recorded and reading.yesterdays(ctx):
        before = calibration.read(ctx.root / recorded.uri / FILE)
    scores = ctx.root / ctx.artifact(Evaluated(name)).uri / "scores.safetensors"
    counted = read_tensors(scores)[0].get("counts_TS2C")
    fitted, metrics = before, _nothing()
    if counted is not None:
        counts = counted.double().numpy()
        fitted = calibration.fit(counts, before, reading.ranking(ctx).prior_rows)
        untouched = calibration.untouched(len(tasks), surfaces)
        metrics = {
            "calibration": calibration.ratio(counts[0], before[0]),
            "calibration_raw": calibration.ratio(counts[0], untouched[0]),
            "scale": float(fitted[0, 0, 0]),
            "shift": float(fitted[0, 0, 1]),
        }
    folder = ctx.paths.ranker("calibrations", name) / ctx.ds
    folder.mkdir(parents=True, exist_ok=True)
    calibration.write(folder / FILE, fitted)
    artifact = Artifact(
        name=Calibrated(name),
        ds=ctx.ds,
        digest=file_sha256(folder / FILE),
        rows=fitted.shape[0] * fitted.shape[1],
        size=(folder / FILE).stat().st_size,
        uri=folder.relative_to(ctx.root).as_posix(),
    )
    return Outcome(outputs=(artifact,), metrics=metrics)


def _nothing() -> Metrics:
    return {"calibration": None, "calibration_raw": None, "scale": 1.0, "shift": 0.0}
