"""Scoring and training of a ranker's arms; one process."""

from typing import cast

import torch

from feature_store.contracts.manifests import Metrics, SnapshotManifest
from feature_store.reading.examples import DayExamples, Order
from jobs.engine.context import RunContext
from jobs.ranking import reading
from jobs.ranking.reading import Arm
from models.protocol import FirstWindow
from models.rankers.calibration import LogitCounts
from models.rankers.objective import RankingObjective
from models.training.checkpoint import Tensors, module_tensors
from models.training.determinism import make_deterministic, seed_for, seed_torch, torch_device
from models.training.loop import Trainer
from models.training.paired_auc import PairedAuc
from models.training.prefetch import to_device

_COARSE = 2**10
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
    compared = tasks if len(trainers) > 1 else ()
    paired = {task: _paired(ctx, first=not i) for i, task in enumerate(compared)}
    for batch in day.batches(Order(batch_rows=config.training.batch_rows)):
        predicted = [trainer.predict(batch) for trainer in trainers]
        (told,) = to_device([batch], torch_device("cpu"), ahead=0)
        targets_BT = trainers[0].objective.targets(told)
        counts.update(predicted[0], targets_BT, told["surface"], told["late"])
        for index, task in enumerate(tasks):
            metrics[task].update(predicted[0][:, index], targets_BT[:, index], told)
        shown_B = ~told["late"]
        logits_ABT, users_B = torch.stack(predicted)[:, shown_B], told["key:user"][shown_B]
        for index, pair in enumerate(paired.values()):
            pair.update(logits_ABT[:, :, index], targets_BT[shown_B, index], users_B)
    found = {task: metric.result() for task, metric in metrics.items()}
    primary, *others = tasks
    named: Metrics = {name: found[primary][name] for name in _MEASURED}
    named |= {f"auc_{task}": found[task]["auc"] for task in others}
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
            cast("RankingObjective", trainer.objective).fit(window)
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
