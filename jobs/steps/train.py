"""Train: one upstream model on the new day, from yesterday's snapshot.

Reads events, users and pins of the day and the snapshot of the day before; writes one snapshot.
The first day of a lineage trains from scratch on the window that ends with it. Every day is scored
before it is trained on (progressive validation), and trained on once: a snapshot's manifest lists
the days it has seen. An attempt that was interrupted continues from its checkpoint and ends with
the same bits. On a day without events yesterday's snapshot stands.

Conversions that arrive late are rows of the day they arrive on; labels that do not apply to them
are null and masked. So a day is complete for training when it ends, and nothing waits.
"""

import subprocess
import sys
import time

from feature_store.contracts.artifacts import Events, Snapshot
from feature_store.contracts.errors import DermError, GuardFailed, InputError
from feature_store.contracts.manifests import Acceptance, Artifact, Metrics, SnapshotManifest
from jobs.engine.context import Outcome, RunContext
from jobs.engine.presence import bytes_in
from jobs.engine.snapshots import SnapshotStore, weights_digest
from jobs.steps.training_guard import check_health
from jobs.steps.training_plan import Plan, plan_training
from jobs.steps.training_run import TrainingRun
from models.training.determinism import torch_device


def run(ctx: RunContext) -> Outcome:
    """Train, unless the same inputs have already made the same snapshot, or it is forced.

    Raises:
        MissingInput: a table or yesterday's snapshot is not there.
        InputError: the first day has no events.
        GuardFailed: the new snapshot is not fit for use; nothing of it remains.
    """
    store = SnapshotStore(ctx.root, ctx.own_upstream)
    if ctx.rests or not ctx.artifact(Events()).rows:
        return _standing(ctx, store)
    plan = plan_training(ctx, store)
    manifest = None if ctx.force else store.manifest(plan.snapshot_id)
    timings: dict[str, float] = {}
    if manifest is None:
        started = time.perf_counter()
        manifest, accepted = _train(ctx, plan, store)
        timings["train_s"] = round(time.perf_counter() - started, 3)
    else:
        accepted = check_health(ctx, plan, manifest.metrics)
    metrics: Metrics = {"snapshot_id": manifest.snapshot_id, **manifest.metrics}
    rows = int(manifest.metrics["rows"] or 0)
    if timings:
        metrics["rows_per_s"] = round(rows / timings["train_s"], 1)
    folder = store.folder(manifest.snapshot_id)
    artifact = Artifact(
        name=Snapshot(ctx.upstream),
        ds=ctx.ds,
        digest=weights_digest(manifest),
        rows=rows,
        size=bytes_in(folder),
        uri=folder.relative_to(ctx.root).as_posix(),
    )
    return Outcome(
        outputs=(artifact,),
        metrics=metrics,
        timings=timings,
        accepted=accepted,
        device=torch_device(ctx.settings.device).type,
    )


def _standing(ctx: RunContext, store: SnapshotStore) -> Outcome:
    """Yesterday's snapshot as that of a day on which nothing is learned: no events, or a rest.

    Raises:
        InputError: there is none: nothing can begin with such a day.
    """
    before = ctx.previous(Snapshot(ctx.upstream))
    if before is None:
        raise InputError(
            f"{ctx.ds} has no events, and no model before it",
            where=f"train {ctx.upstream} {ctx.ds}",
            expected="a first day with events",
            found="none",
            hint="begin on a day with events: derm init --start DAY, or derm bootstrap --ds DAY",
        )
    artifact = before.model_copy(update={"ds": ctx.ds, "rows": 0})
    return Outcome(
        outputs=(artifact,),
        metrics={"snapshot_id": store.of(before).snapshot_id, "rows": 0, "days": 0},
    )


def _train(
    ctx: RunContext, plan: Plan, store: SnapshotStore
) -> tuple[SnapshotManifest, tuple[Acceptance, ...]]:
    """Make the snapshot as a draft, check it, and make it visible; and what was accepted of it."""
    if ctx.force:
        store.begin_anew(plan.snapshot_id, ctx.repair)
    draft = store.draft_manifest(plan.snapshot_id)
    if draft is None:
        if ctx.settings.train_processes == 1:
            TrainingRun(ctx, plan, store).run()
        else:
            _run_ranks(ctx)
        draft = store.draft_manifest(plan.snapshot_id)
    if draft is None:
        raise DermError(
            f"training of {plan.snapshot_id} left no snapshot",
            where=str(store.draft(plan.snapshot_id)),
            hint=f"derm train --ds {ctx.ds} --upstream {ctx.upstream}",
        )
    try:
        accepted = check_health(ctx, plan, draft.metrics)
    except GuardFailed:
        store.discard(plan.snapshot_id)
        raise
    store.promote(plan.snapshot_id)
    return draft, accepted


def _run_ranks(ctx: RunContext) -> None:
    """Carry out the plan in several processes; each makes the same plan from the manifests.

    Raises:
        DermError: a process failed.
    """
    processes = ctx.settings.train_processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "jobs.steps.train_rank"]
    command += ["--ds", ctx.ds, "--upstream", ctx.own_upstream]
    if code := subprocess.run(command, check=False).returncode:
        raise DermError(
            f"training of {ctx.ds} {ctx.upstream} failed on {processes} processes",
            expected="exit code 0",
            found=f"exit code {code}; the messages above are those of the processes",
            hint=f"derm train --ds {ctx.ds} --upstream {ctx.upstream}",
        )
