"""The gate after training: is the new snapshot fit to embed with?"""

import math

from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Metrics
from jobs.recipes import GuardConfig
from jobs.training_plan import Plan

_NORM_TOLERANCE = 1e-3


def check_health(plan: Plan, metrics: Metrics, guards: GuardConfig) -> None:
    """Compare a snapshot's numbers with their bounds.

    The loss is finite; the AUC of the incoming snapshot on the day has not fallen by more than
    `max_auc_drop` since the last accepted one; embeddings have norm 1 and are not collapsed.

    Raises:
        GuardFailed: naming the number and its bound.
    """
    loss = _number(metrics, "loss")
    if not math.isfinite(loss):
        _refuse(plan, "the training loss is not finite", "a finite loss", f"loss {loss}")
    last = plan.parent.metrics.get("auc") if plan.parent else None
    auc = metrics.get("auc")
    if isinstance(last, float) and isinstance(auc, float) and auc < last - guards.max_auc_drop:
        _refuse(
            plan,
            "the AUC on the new day fell too far",
            f"auc >= {last - guards.max_auc_drop:.4f} (last accepted {last:.4f})",
            f"auc {auc:.4f}",
        )
    error = _number(metrics, "norm_error")
    if not error <= _NORM_TOLERANCE:
        _refuse(
            plan,
            "embeddings do not have norm 1",
            f"norm_error <= {_NORM_TOLERANCE}",
            f"norm_error {error}",
        )
    rank = _number(metrics, "effective_rank")
    if not rank >= guards.min_effective_rank:
        _refuse(
            plan,
            "the embeddings have collapsed",
            f"effective_rank >= {guards.min_effective_rank}",
            f"effective_rank {rank:.3f}",
        )


def _number(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return float(value) if isinstance(value, float | int) else math.nan


def _refuse(plan: Plan, what: str, expected: str, found: str) -> None:
    ds = plan.days[-1]
    raise GuardFailed(
        f"snapshot {plan.snapshot_id} is refused: {what}",
        where=f"train {ds}",
        expected=expected,
        found=found,
        hint=f"look at the day first: derm validate --ds {ds} --force; bounds: recipe.guards",
    )
