"""A past day measured once more, on the day with whose end its labels are final.

A day is scored with the labels that are known when it ends. Conversions go on arriving: on its
`labels_mature_on`, the snapshot that scored it says the same of the same impressions again, and is
measured against what became of them.
"""

from feature_store.contracts.base import shift_day
from feature_store.contracts.manifests import Metrics, SnapshotManifest
from feature_store.reading.examples import Order
from jobs.engine.context import RunContext
from jobs.engine.snapshots import MODEL, SnapshotStore
from jobs.steps.model_inputs import examples, new_objective
from jobs.steps.training_plan import model_digest
from models.training.determinism import torch_device
from models.training.distributed import world
from models.training.loop import Trainer

_MEASURED = ("auc", "ne", "calibration", "rows")


def matured(ctx: RunContext, store: SnapshotStore) -> Metrics:
    """How the model of then did on the day whose labels are final with the context's day.

    Returns:
        `mature_day`, and `auc`, `ne`, `calibration` and `rows` of its impressions with `_mature`
        behind them. All are None where the upstream learns no labels or they are final at once, or
        the day was not scored by a snapshot that is still there: the first day of a space is not.
    """
    nothing: Metrics = {"mature_day": None, **{f"{name}_mature": None for name in _MEASURED}}
    days = ctx.spec.attribution_days
    ds = shift_day(ctx.ds, -days)
    snapshot = scored_with(ctx, store, ds) if days and ctx.reads_rows else None
    if snapshot is None:
        return nothing
    config, day = ctx.own_recipe.training, examples(ctx, ds, known_by=ctx.ds)
    objective = new_objective(ctx)
    if not objective.tasks:
        return nothing
    objective.load_state_dict(store.read(snapshot, MODEL))
    scorer = Trainer(
        objective,
        config,
        torch_device(ctx.settings.device),
        learning_rate=config.incremental_learning_rate,
        empty=day.empty(),
    )
    order = Order(batch_rows=config.batch_rows, rows="impressions", shard=world())
    scores = scorer.score(day.batches(order))[objective.tasks[0]]
    return {"mature_day": ds, **{f"{name}_mature": scores.get(name) for name in _MEASURED}}


def scored_with(ctx: RunContext, store: SnapshotStore, ds: str) -> SnapshotManifest | None:
    """The snapshot that scored a day before it was trained on; None where there is none."""
    own, before = (_snapshot(ctx, store, day) for day in (ds, shift_day(ds, -1)))
    if own is None or before is None or own.parent_id != before.snapshot_id:
        return None
    return before if before.recipe == model_digest(ctx) else None


def _snapshot(ctx: RunContext, store: SnapshotStore, ds: str) -> SnapshotManifest | None:
    recorded = ctx.manifests.get("train", ds, ctx.own_upstream)
    return store.manifest(recorded.outputs[0].uri.rpartition("/")[2]) if recorded else None
