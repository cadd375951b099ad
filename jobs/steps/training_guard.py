"""The gate after training: is the new snapshot fit to embed with?"""

import math

from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Metrics
from jobs.recipes import GuardConfig
from jobs.steps.training_plan import Plan

_NORM_TOLERANCE = 1e-3


def check_health(plan: Plan, metrics: Metrics, guards: GuardConfig) -> None:
    """Compare a snapshot's numbers with their bounds.

    The loss is finite; the AUC of the incoming snapshot on the day is not below `auc_bound`, where
    there is one; embeddings have norm 1 and are not collapsed.

    Raises:
        GuardFailed: naming the number and its bound.
    """
    loss = _number(metrics, "loss")
    if not math.isfinite(loss):
        _refuse(plan, "the training loss is not finite", "a finite loss", f"loss {loss}")
    auc, bound = _number(metrics, "auc"), _number(metrics, "auc_bound")
    if auc < bound:
        _refuse(
            plan, "the AUC on the new day fell too far", f"auc >= {bound:.4f}", f"auc {auc:.4f}"
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


def auc_bound(last: Metrics, new: Metrics, max_drop: float) -> float | None:
    """The lowest AUC that may follow the last accepted one; None when either day has none.

    It lies `max_drop` and three standard errors of the difference below. A day with fifty
    conversions has an AUC that is known to +- 0.04: a fixed bound alone would refuse good days of
    a rare label, or pass bad days of a frequent one.
    """
    before, after = _number(last, "auc"), _number(new, "auc")
    if math.isnan(before) or math.isnan(after):
        return None  # a day without a positive row has no AUC
    chance = 3 * math.hypot(auc_standard_error(last), auc_standard_error(new))
    return before - max_drop - chance


def auc_standard_error(metrics: Metrics) -> float:
    """Standard error of an AUC from `auc`, `base_rate` and `scored_rows`.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982, eq. 2.
    """
    auc, rows = _number(metrics, "auc"), _number(metrics, "scored_rows")
    positive = max(1.0, rows * _number(metrics, "base_rate"))
    negative = max(1.0, rows - positive)
    above = auc / (2 - auc) - auc**2
    below = 2 * auc**2 / (1 + auc) - auc**2
    variance = auc * (1 - auc) + (positive - 1) * above + (negative - 1) * below
    return math.sqrt(variance / (positive * negative))


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
