"""One attempt to train a snapshot: pass by pass, checked, written; resumable."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from feature_store.contracts.base import Upstream
from feature_store.contracts.manifests import Metrics, SnapshotManifest
from feature_store.embeddings.noise import rank_bound
from feature_store.reading.counts import largest_counts
from feature_store.reading.day_edges import DayEdges
from feature_store.reading.entities import Arrays
from feature_store.reading.examples import Order
from feature_store.reading.readers import Reader
from feature_store.reading.summaries import summarize
from jobs.engine.context import RunContext
from jobs.engine.snapshots import BEST, CHECKPOINT, MODEL, OPTIMIZER, SnapshotStore
from jobs.engine.training_watch import watcher_of
from jobs.steps.maturity import matured
from jobs.steps.model_inputs import examples, family_of, introduce, new_objective, reader
from jobs.steps.training_guard import auc_metrics, better, scored
from jobs.steps.training_plan import Pass, Plan, model_digest
from models.nn.tokens import NumericRange
from models.protocol import FirstWindow
from models.training.checkpoint import (
    Tensors,
    module_tensors,
    read_tensors,
    write_tensors,
)
from models.training.determinism import make_deterministic, seed_for, seed_torch, torch_device
from models.training.distributed import world
from models.training.loop import PassState, Scores, Trainer
from models.training.metrics import effective_rank
from models.training.watchers import Watcher

_DAY_MINUTES = 1440
_SAMPLE_ROWS = 8192


@dataclasses.dataclass(kw_only=True)
class TrainingProgress:
    """How far an attempt has come.

    Attributes:
        phase: index of the phase that is next, or under way.
        rows: of all ranks, trained on in the phases before it.
        current: state of the pass under way.
        last: state of the last finished pass.
        passes: over the days before the newest one, that were finished.
    """

    phase: int = 0
    rows: int = 0
    current: PassState = dataclasses.field(default_factory=PassState)
    last: PassState = dataclasses.field(default_factory=PassState)
    scores: Scores = dataclasses.field(default_factory=dict)
    passes: int = 0


class TrainingRun:
    """Carries out a plan on this rank."""

    def __init__(self, ctx: RunContext, plan: Plan, store: SnapshotStore) -> None:
        self.ctx, self.plan, self.store = ctx, plan, store
        self.config = ctx.recipe.training
        self.upstream = ctx.own_upstream
        self._day: Reader | None = None
        make_deterministic(threads=ctx.settings.threads)
        self.trainer = self._trainer()
        self.progress = TrainingProgress()
        # The first process speaks for all.
        self.watcher = Watcher() if world()[0] else watcher_of(ctx, plan.snapshot_id)

    def run(self) -> None:
        """Train and measure; what comes out is a complete draft."""
        self._restore()
        while self.progress.phase < len(self.plan.phases):
            self._carry_out(self.plan.phases[self.progress.phase])
        metrics = self._metrics()
        self.watcher.close({n: x for n, x in metrics.items() if not isinstance(x, str)})
        if world()[0] == 0:
            self._write(metrics)

    def _trainer(self) -> Trainer:
        """A trainer that starts where the parent stopped, or from the first window's numbers."""
        ctx, parent = self.ctx, self.plan.parent
        seed_torch(ctx.home.seed, self.upstream, "initialise")
        objective = new_objective(ctx)
        rate = self.config.incremental_learning_rate if parent else self.config.learning_rate
        if parent:
            objective.load_state_dict(self.store.read(parent, MODEL))
        introduce(objective, self._examples(self.plan.days[-1]))
        trainer = Trainer(
            objective,
            self.config,
            torch_device(ctx.settings.device),
            learning_rate=rate,
            empty=self._examples(self.plan.days[-1]).empty(),
        )
        if parent:
            trainer.optimizer.load(self.store.read(parent, OPTIMIZER))
        return trainer

    def _carry_out(self, phase: Pass) -> None:
        progress = self.progress
        if phase.kind == "score":
            self._score(phase)
            return
        day = self._examples(phase.ds)
        if isinstance(day, DayEdges):
            whole = day.rows()
        else:
            whole = self.ctx.lake.dataset(self.ctx.spec.events_table(), [phase.ds]).count_rows()
        self.watcher.begin(f"{phase.ds} {phase.half}", whole)
        state = self.trainer.train(
            self._batches(phase),
            seed=(self.ctx.home.seed, self.upstream, phase.ds, phase.half),
            state=progress.current,
            on_step=self._on_step,
            new_day=phase.half != "second",
            again=phase.number > 0,
        )
        self.watcher.end()
        message = "%s %s: %d rows, loss %.4f"
        self.ctx.log.info(message, phase.ds, self.upstream, state.rows, state.mean())
        progress.rows += state.rows
        progress.last, progress.current = state, PassState()
        progress.phase += 1
        if self.config.checkpoint_steps and progress.phase < len(self.plan.phases):
            self._save(progress)

    def _score(self, phase: Pass) -> None:
        """Score the newest day; where it is no better than after the pass before, go back there."""
        progress, rest = self.progress, self.plan.phases[self.progress.phase + 1 :]
        scores = self.trainer.score(self._batches(phase))
        if phase.number and not better(scores, progress.scores, self.trainer.objective.tasks):
            self._load(read_tensors(self._best)[0])
            progress.phase = len(self.plan.phases) - 1
            return
        progress.scores, progress.passes = scores, phase.number + 1
        progress.phase += 1
        if len(rest) > 1 and world()[0] == 0:
            self._best.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(self._best, {**self._weights(), **self._moments()})

    @property
    def _best(self) -> Path:
        """The weights after the best pass so far, while another one is under way."""
        return self.store.draft(self.plan.snapshot_id) / BEST

    def _batches(self, phase: Pass) -> Iterator[Arrays]:
        day = self._examples(phase.ds)
        minutes = (0, _DAY_MINUTES)
        if phase.half != "all":
            middle = day.middle_minute()
            minutes = (0, middle) if phase.half == "first" else (middle, _DAY_MINUTES)
        again = (phase.number,) if phase.number else ()
        seed = seed_for(self.ctx.home.seed, self.upstream, phase.ds, "shuffle", *again)
        training = phase.kind == "train"
        family, model = family_of(self.ctx), self.ctx.own_recipe.model
        order = Order(
            batch_rows=self.config.batch_rows,
            chunk_rows=self.config.shuffle_rows,
            together=self.config.together,
            seed=seed if training else None,
            shard=world(),
            minutes=minutes,
            random_pins=family.random_pins(model) if training else 0,
        )
        return day.batches(order)

    def _examples(self, ds: str) -> Reader:
        """What is read of a day; that of the last one asked for is kept."""
        if self._day is None or self._day.ds != ds:
            ctx = self.ctx
            self._day = reader(ctx, ds, from_scratch=self.plan.parent is None)
        return self._day

    def _on_step(self, state: PassState) -> None:
        self.watcher.step(self.progress.rows + state.rows, state.latest)
        every = self.config.checkpoint_steps
        if every and state.steps % every == 0:
            self._save(dataclasses.replace(self.progress, current=state))

    def _save(self, progress: TrainingProgress) -> None:
        """Write the checkpoint from which an interrupted attempt continues."""
        rank, ranks = world()
        if rank == 0:
            draft = self.store.draft(self.plan.snapshot_id)
            draft.mkdir(parents=True, exist_ok=True)
            metadata = {"ranks": str(ranks), "progress": json.dumps(dataclasses.asdict(progress))}
            write_tensors(draft / CHECKPOINT, {**self._weights(), **self._moments()}, metadata)

    def _restore(self) -> None:
        """Continue from the checkpoint of an interrupted attempt; else fit the first window."""
        if not self._continued() and self.plan.parent is None:
            window = FirstWindow(ranges={}, base_rates={}, sample={})
            if self.ctx.reads_rows:
                window = first_window(self.ctx, self.plan.days, self.upstream)
            family_of(self.ctx).fit(self.trainer.objective, window)

    def _continued(self) -> bool:
        """Load the checkpoint, if there is one that this attempt can continue from."""
        path, log = self.store.draft(self.plan.snapshot_id) / CHECKPOINT, self.ctx.log
        if not path.exists():
            return False
        tensors, metadata = read_tensors(path)
        found, ranks = metadata.get("ranks"), str(world()[1])
        if found != ranks:
            # Each process reads its share of the rows: the steps taken were over other batches.
            message = "%s: starts anew, its checkpoint is of %s processes and these are %s"
            log.info(message, self.plan.snapshot_id, found, ranks)
            return False
        self._load(tensors)
        self.progress = _progress(json.loads(metadata["progress"]))
        message = "%s: continued after %d steps of phase %d"
        steps = self.progress.current.steps
        log.info(message, self.plan.snapshot_id, steps, self.progress.phase)
        return True

    def _weights(self) -> Tensors:
        return {f"model/{k}": v for k, v in module_tensors(self.trainer.objective).items()}

    def _moments(self) -> Tensors:
        return {f"optimizer/{k}": v for k, v in self.trainer.optimizer.tensors().items()}

    def _load(self, tensors: Tensors) -> None:
        def part(prefix: str) -> Tensors:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.trainer.objective.load_state_dict(part("model/"))
        self.trainer.optimizer.load(part("optimizer/"))

    def _metrics(self) -> Metrics:
        """Progressive validation, losses of the day, health of the embeddings."""
        progress, objective = self.progress, self.trainer.objective
        metrics = scored(progress.scores, objective.tasks)
        parent, guards = self.plan.parent, self.ctx.recipe.guards
        return {
            **metrics,
            **auc_metrics(parent.metrics if parent else None, metrics, guards),
            "loss": progress.last.mean(),
            **{f"loss_{name}": progress.last.mean(name) for name in objective.losses[1:]},
            **objective.numbers(),
            **self._health(),
            **matured(self.ctx, self.store),
            "rows": progress.rows,
            "days": len(self.plan.days),
            **(
                {"passes": progress.passes} if len({p.number for p in self.plan.phases}) > 1 else {}
            ),
        }

    def _health(self) -> Metrics:
        """Effective rank and norms over a sample of the day's distinct entities."""
        order = Order(batch_rows=self.config.health_rows)
        day = self._examples(self.plan.days[-1])
        batch = next(day.batches(order), None)
        if batch is None:
            return {"norm_error": 0.0}
        embedded = self.trainer.embed(batch, self.ctx.own_entities)
        ranks: Metrics = {}
        worst, least = 0.0, self.ctx.recipe.guards.min_effective_rank
        for entity in self.ctx.own_entities:
            first = np.unique(batch[f"key:{entity}"], return_index=True)[1]
            vectors = embedded[entity][torch.from_numpy(first)]
            worst = max(worst, float((vectors.double().norm(dim=1) - 1).abs().max()))
            finite = bool(torch.isfinite(vectors).all())
            ranks[f"effective_rank_{entity}"] = effective_rank(vectors) if finite else math.nan
            ranks[f"effective_rank_bound_{entity}"] = rank_bound(least, *vectors.shape)
        return {**ranks, "norm_error": worst}

    def _write(self, metrics: Metrics) -> None:
        plan, parent = self.plan, self.plan.parent
        objective = self.trainer.objective
        own_space = f"{self.upstream}-{plan.snapshot_id}"
        manifest = SnapshotManifest(
            snapshot_id=plan.snapshot_id,
            space_id=parent.space_id if parent else own_space,
            parent_id=parent.snapshot_id if parent else None,
            upstream=self.upstream,
            ds=self.ctx.ds,
            seen_days=(*(parent.seen_days if parent else ()), *plan.days),
            embedding_dim=self.ctx.own_recipe.model.embedding_dim,
            recipe=model_digest(self.ctx),
            metrics=metrics,
            files={},
        )
        files = {
            MODEL: module_tensors(objective),
            OPTIMIZER: self.trainer.optimizer.tensors(),
        }
        self.store.write_draft(manifest, files)


def first_window(ctx: RunContext, days: tuple[str, ...], upstream: Upstream) -> FirstWindow:
    """What the days of a from-scratch training say about features and labels.

    What is only known when the last day ends, which that day is scored on, is of the days before
    it: labels and context. Users, Pins and counts are as of a day's start. A window that is one day
    has nothing before it, and is scored on its second half.

    A window of counts fills up as days go by, so a count may become as large as the largest of one
    day times the days of its window; a rate lies between 0 and 1.
    """
    found = summarize(ctx.lake, ctx.spec, days, upstream, known=days[:-1] or days)
    ranges = {
        name: NumericRange(minimum=x.minimum, maximum=x.maximum, std=x.std)
        for name, x in found.items()
    }
    # Counts of nothing but zeros have no spread, and are left out.
    for name, most in largest_counts(ctx.lake, ctx.spec, days, ctx.counting).items():
        ranges[name] = NumericRange(maximum=most, std=most)
    labels = ctx.spec.labels_of(upstream)
    return FirstWindow(
        ranges=ranges,
        base_rates={label.name: found[label.name].mean for label in labels},
        sample=_sample(ctx, days),
    )


def _sample(ctx: RunContext, days: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Rows of the last day, whose counts are fullest, with the context of the day before."""
    order = Order(batch_rows=_SAMPLE_ROWS, seed=0, distinct=False)

    def rows_of(ds: str) -> Arrays:
        day = examples(ctx, ds, from_scratch=True)
        return next(day.batches(order), day.empty())

    rows = rows_of(days[-1])
    if len(days) > 1:
        before = rows_of(days[-2])
        rows |= {f.name: before[f.name] for f in ctx.spec.features_of("context")}
    return {name: torch.from_numpy(array) for name, array in rows.items()}


def _progress(saved: dict) -> TrainingProgress:
    current, last = (PassState(**saved.pop(k)) for k in ("current", "last"))
    return TrainingProgress(**saved, current=current, last=last)
