"""Calibrate: from logits to probabilities, a scale and a shift for each surface and task.

Reads how often each logit of the day was right, said before the day was learned, and yesterday's
calibration, which it stays near where the day has little to say. Writes the new one. Measures, with
yesterday's calibration, how predicted and observed positives of the day compare on each surface:
where they are far apart, by more than chance, the day's export is refused.
"""

import math

from feature_store.contracts.artifacts import Calibrated, Evaluated
from feature_store.contracts.bounds import Check
from feature_store.contracts.digests import file_sha256
from feature_store.contracts.manifests import Artifact, Metrics
from feature_store.embeddings.noise import SIGMAS
from jobs.engine.context import Outcome, RunContext
from jobs.engine.guards import hold
from jobs.ranking import reading
from models.rankers import calibration
from models.rankers.calibration import Floats
from models.training.checkpoint import read_tensors

FILE = "calibration.safetensors"


def run(ctx: RunContext) -> Outcome:
    """Fit the calibration of the day; of a ranker's first day it leaves logits as they are.

    Raises:
        GuardFailed: yesterday's calibration is too far off on a surface.
    """
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
        ranking = reading.ranking(ctx)
        fitted = calibration.fit(counts, before, ranking.prior_rows, ranking.calibration)
        untouched = calibration.untouched(len(tasks), surfaces)
        metrics = {
            "calibration": calibration.ratio(counts[0], before[0]),
            "calibration_raw": calibration.ratio(counts[0], untouched[0]),
            "scale": float(fitted[0, 0, 0]),
            "shift": float(fitted[0, 0, 1]),
        }
        metrics |= _off(ctx, counts[0], before[0])
    checks = (_check(metrics),)
    what = "the ranker's predictions are far from what was observed"
    accepted = hold(ctx.root, "calibrate", ctx.ds, ctx.upstream, checks, what)
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
    return Outcome(outputs=(artifact,), metrics=metrics, accepted=accepted)


def _off(ctx: RunContext, counts_S2C: Floats, before_S2: Floats) -> Metrics:
    """The ratio of each surface, and of the one that is furthest beyond chance how far it is."""
    names = ("other", *ctx.spec.surfaces)
    metrics: Metrics = {}
    beyond = -math.inf
    for name, (found, positives) in zip(
        names, calibration.ratios(counts_S2C, before_S2), strict=True
    ):
        if name != names[0]:
            metrics[f"calibration_{name}"] = found
        if not found or positives <= 0:
            continue
        off = abs(math.log(found))
        bound = ctx.recipe.guards.max_calibration_off + SIGMAS / math.sqrt(positives)
        if off - bound > beyond:
            beyond = off - bound
            metrics |= {"calibration_off": off, "calibration_off_bound": bound}
    return metrics


def _check(metrics: Metrics) -> Check:
    found, bound = (metrics.get(f"calibration_off{x}") for x in ("", "_bound"))
    return Check(
        number="calibration_off",
        found=found if isinstance(found, float) else None,
        bound=bound if isinstance(bound, float) else None,
        least=False,
    )


def _nothing() -> Metrics:
    return {"calibration": None, "calibration_raw": None, "scale": 1.0, "shift": 0.0}
