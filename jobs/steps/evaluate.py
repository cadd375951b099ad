"""Evaluate: yesterday's ranker on the new day, before it learns from it.

Reads what the day is joined with, and yesterday's ranker. Writes how often each logit was right, by
surface, which is what calibration needs; measures the AUC with and without embeddings on the same
rows, and the interval of the difference, users drawn again. A ranker whose AUC fell below its bound
is refused, by the same gate as an upstream's model: the day is not learned, and yesterday's export
stays in use.
"""

from feature_store.contracts.artifacts import Evaluated
from feature_store.contracts.base import shift_day
from feature_store.contracts.bounds import Check
from feature_store.contracts.digests import file_sha256
from feature_store.contracts.manifests import Artifact, Metrics
from jobs.engine.context import Outcome, RunContext
from jobs.engine.guards import hold
from jobs.ranking import reading
from jobs.ranking import run as runs
from jobs.steps.training_guard import auc_metrics
from models.training.checkpoint import write_tensors
from models.training.determinism import torch_device

SCORES = "scores.safetensors"


def run(ctx: RunContext) -> Outcome:
    """Score the day; on the first day of a ranker there is nothing to score it with.

    Raises:
        MissingInput: yesterday's ranker is not there, and should be.
        GuardFailed: the AUC is below its bound.
    """
    parent = reading.yesterdays(ctx)
    folder = ctx.paths.ranker("scores", ctx.own_ranker.name) / ctx.ds
    metrics: Metrics = {}
    tensors = {}
    if parent:
        found, counts = runs.score(ctx, parent)
        tensors["counts_TS2C"] = counts.counts_TS2C
        metrics = found | auc_metrics(_before(ctx), found, ctx.recipe.guards)
        for surface in reading.surfaces(ctx):
            metrics |= _on(ctx, f"auc_on_{surface}", found)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / SCORES, tensors)
    what = "yesterday's ranker is refused on the new day"
    accepted = hold(
        ctx.root, "evaluate", ctx.ds, ctx.upstream, checks(metrics, reading.surfaces(ctx)), what
    )
    artifact = Artifact(
        name=Evaluated(ctx.own_ranker.name),
        ds=ctx.ds,
        digest=file_sha256(folder / SCORES),
        rows=int(metrics.get("scored_rows") or 0),
        size=(folder / SCORES).stat().st_size,
        uri=folder.relative_to(ctx.root).as_posix(),
    )
    return Outcome(
        outputs=(artifact,),
        metrics=metrics,
        accepted=accepted,
        device=torch_device(ctx.settings.device).type,
    )


def _before(ctx: RunContext) -> Metrics | None:
    """What the evaluation of the day before measured, and with it the AUC to compare with."""
    manifest = ctx.manifests.get("evaluate", shift_day(ctx.ds, -1), ctx.upstream)
    return manifest.metrics if manifest else None


def _on(ctx: RunContext, name: str, found: Metrics) -> Metrics:
    """The lowest AUC that may follow on one surface, and what the next day is compared with."""
    before = _before(ctx) or {}
    fields = ("auc_reference", "auc_reference_se")
    said = {field: before.get(field.replace("auc", name, 1)) for field in fields}
    new = {"auc": found[name], "auc_se": found[f"{name}_se"]}
    bounds = auc_metrics(said, new, ctx.recipe.guards)
    return {field.replace("auc", name, 1): value for field, value in bounds.items()}


def checks(metrics: Metrics, surfaces: tuple[str, ...]) -> tuple[Check, ...]:
    """What is held against its bound: the AUC, and that on each of some surfaces."""
    numbers = ("auc", *(f"auc_on_{surface}" for surface in surfaces))
    return tuple(
        Check(
            number=number,
            found=found if isinstance(found := metrics.get(number), float) else None,
            bound=bound if isinstance(bound := metrics.get(f"{number}_bound"), float) else None,
        )
        for number in numbers
    )
