"""Scoring and training of a ranker's arms; one process."""

import math
from pathlib import Path
from typing import cast

import torch

from feature_store.contracts.errors import ManifestCorrupt, MissingInput
from feature_store.contracts.manifests import Metrics, SnapshotManifest
from feature_store.reading.examples import DayExamples, Order
from jobs.engine.context import RunContext
from jobs.ranking import reading
from jobs.ranking.reading import Arm
from models.protocol import FirstWindow
from models.rankers import export
from models.rankers.calibration import LogitCounts
from models.rankers.objective import RankingObjective
from models.training.checkpoint import Tensors, module_tensors
from models.training.determinism import make_deterministic, seed_for, seed_torch, torch_device
from models.training.impressions import PrimaryMetrics
from models.training.loop import Trainer
from models.training.paired_auc import PairedAuc
from models.training.prefetch import to_device

_COARSE, _SHADOW_ROWS = 2**10, 1024
_MEASURED = ("auc", "auc_se", "pr_auc", "logloss", "ne", "base_rate", "ece")


def new_trainer(
    ctx: RunContext, arm: Arm, day: DayExamples, parent: SnapshotManifest | None
) -> Trainer:
    """A trainer of one arm: where its parent stopped, or with weights of its own."""
    make_deterministic(threads=ctx.settings.threads)
    training = reading.ranking(ctx).training
    seed_torch(ctx.home.seed, ctx.own_ranker.name, arm, "initialise")
    trainer = Trainer(
        reading.new_ranker(ctx, arm),
        training,
        torch_device(ctx.settings.device),
        learning_rate=training.incremental_learning_rate if parent else training.learning_rate,
        empty=day.empty(),
    )
    if parent:
        reading.load(ctx, trainer, parent, arm)
    return trainer


def score(ctx: RunContext, parent: SnapshotManifest) -> tuple[Metrics, LogitCounts]:
    """How yesterday's ranker does on a day that it has not seen, every arm on the same rows."""
    day, config = reading.examples(ctx, ctx.ds), reading.ranking(ctx)
    trainers = [new_trainer(ctx, arm, day, parent) for arm in reading.arms(ctx)]
    tasks = trainers[0].objective.tasks
    metrics = trainers[0].objective.metrics()
    counts = LogitCounts(len(tasks), len(ctx.spec.surfaces))
    apart = {name: PrimaryMetrics() for name in reading.surfaces(ctx)}
    compared = tasks if len(trainers) > 1 else ()
    paired = {task: _paired(ctx, first=not i) for i, task in enumerate(compared)}
    for batch in day.batches(Order(batch_rows=config.training.batch_rows)):
        predicted = [trainer.predict(batch) for trainer in trainers]
        (told,) = to_device([batch], torch_device("cpu"), ahead=0)
        targets_BT = trainers[0].objective.targets(told)
        counts.update(predicted[0], targets_BT, told["surface"], told["late"])
        for index, task in enumerate(tasks):
            metrics[task].update(predicted[0][:, index], targets_BT[:, index], told)
        for number, metric in enumerate(apart.values(), 1):
            mine_B = told["surface"] == number
            rows = {name: told[name][mine_B] for name in ("late", "key:user")}
            metric.update(predicted[0][mine_B, 0], targets_BT[mine_B, 0], rows)
        shown_B = ~told["late"]
        logits_ABT, users_B = torch.stack(predicted)[:, shown_B], told["key:user"][shown_B]
        for index, pair in enumerate(paired.values()):
            pair.update(logits_ABT[:, :, index], targets_BT[shown_B, index], users_B)
    found = {task: metric.result() for task, metric in metrics.items()}
    primary, *others = tasks
    named: Metrics = {name: found[primary][name] for name in _MEASURED}
    named |= {f"auc_{task}": found[task]["auc"] for task in others}
    for name, metric in apart.items():
        own = metric.result()
        named |= {f"auc_on_{name}": own["auc"], f"auc_on_{name}_se": own["auc_se"]}
    named["scored_rows"] = found[primary]["rows"]
    for index, (task, pair) in enumerate(paired.items()):
        suffix = f"_{task}" if index else ""
        named |= {f"{name}{suffix}": value for name, value in pair.result().items()}
    return named, counts


def _paired(ctx: RunContext, *, first: bool) -> PairedAuc:
    """What compares the arms on one task: the primary one more finely than the others."""
    draws = reading.ranking(ctx).draws
    if first:
        return PairedAuc(draws, ctx.home.seed)
    return PairedAuc(draws, ctx.home.seed, bins=_COARSE)


def shadow(ctx: RunContext, new: Path, old: Path) -> Metrics:
    """What a new export says of some of the day's rows beside the one in use.

    Returns:
        `shadow_rows`; of the probabilities of the primary task `shadow_gap`, their mean distance,
        `shadow_ratio`, new by old, and `shadow_correlation`. Nothing where they cannot be compared:
        they read or say other things, the one in use is damaged, or the rows are gone.
    """
    try:
        read = [export.load(folder) for folder in (new, old)]
    except ManifestCorrupt as error:
        ctx.log.warning("the export in use is compared with nothing: %s", error)
        return {}
    offered = [(r.description.spaces, r.description.features, r.description.tasks) for r in read]
    if offered[0] != offered[1]:
        return {}
    order = Order(batch_rows=_SHADOW_ROWS, rows="impressions")
    try:
        batch = next(reading.examples(ctx, ctx.ds).batches(order), None)
    except MissingInput:
        return {}
    if batch is None:
        return {}
    (rows,) = to_device([batch], torch_device("cpu"), ahead=0)
    told_2B = torch.stack([r.predict(rows, reading.spaces(ctx))[:, 0].double() for r in read])
    correlation = float(torch.corrcoef(told_2B)[0, 1])
    return {
        "shadow_rows": told_2B.shape[1],
        "shadow_gap": float((told_2B[0] - told_2B[1]).abs().mean()),
        "shadow_ratio": float(told_2B[0].mean() / told_2B[1].mean()),
        "shadow_correlation": correlation if math.isfinite(correlation) else None,
    }


def train(
    ctx: RunContext,
    days: tuple[str, ...],
    parent: SnapshotManifest | None,
    window: FirstWindow | None,
) -> tuple[dict[str, Tensors], Metrics]:
    """The files of a ranker that has learned some days, and its losses on the last of them.

    Args:
        window: what the days say about features and labels, where it begins anew.
    """
    files: dict[str, Tensors] = {}
    metrics: Metrics = {"days": len(days)}
    for arm in reading.arms(ctx):
        trainer = new_trainer(ctx, arm, reading.examples(ctx, days[-1]), parent)
        if window:
            objective = cast("RankingObjective", trainer.objective)
            objective.fit(window)
            if arm == "with" and (before := reading.teacher(ctx)):
                objective.teacher = before.objective.to(trainer.device).predict
        rows = 0
        for ds in days:
            seed = (ctx.home.seed, ctx.own_ranker.name, ds)
            order = Order(
                batch_rows=trainer.config.batch_rows,
                chunk_rows=trainer.config.shuffle_rows,
                seed=seed_for(*seed, "shuffle"),
            )
            state = trainer.train(reading.examples(ctx, ds).batches(order), seed=seed)
            rows += state.rows
            ctx.log.info(
                "%s %s %s: %d rows, loss %.4f", ds, ctx.upstream, arm, state.rows, state.mean()
            )
        model, optimizer = reading.weights_of(arm)
        files |= {
            model: module_tensors(trainer.objective),
            optimizer: trainer.optimizer.tensors(),
        }
        metrics |= {f"loss_{arm}": state.mean(), "rows": rows}
        if arm == "with":
            metrics |= trainer.objective.numbers()
    return files, metrics
