"""What a day scored before it was trained on, and the gate after: may the snapshot be used?"""

import math
from collections.abc import Iterable, Iterator

from feature_store.contracts.base import Entity
from feature_store.contracts.bounds import Check
from feature_store.contracts.errors import GuardFailed
from feature_store.contracts.manifests import Acceptance, Metrics
from feature_store.embeddings.noise import SIGMAS
from jobs.engine.context import RunContext
from jobs.engine.guards import hold
from jobs.recipes import GuardConfig
from jobs.steps.training_plan import Plan
from models.training.loop import Scores

_NORM_TOLERANCE = 1e-3
_PRIMARY = (
    *("auc", "auc_se", "pr_auc", "logloss", "ne", "base_rate"),
    *("calibration", "calibration_arrived", "ece"),
)


def check_health(ctx: RunContext, plan: Plan, metrics: Metrics) -> tuple[Acceptance, ...]:
    """Compare a snapshot's numbers with their bounds.

    The loss is finite; embeddings have norm 1 and are not collapsed; the AUC of the incoming
    snapshot on the day is not below `auc_bound`, where there is one.

    Returns:
        What a person accepted, and without which the snapshot would have been refused.

    Raises:
        GuardFailed: naming the number and its bound.
    """
    for number, fits, expected in (
        ("loss", math.isfinite, "a finite loss"),
        ("norm_error", _NORM_TOLERANCE.__ge__, f"norm_error <= {_NORM_TOLERANCE}"),
    ):
        found = _number(metrics, number)
        if not fits(found):
            raise GuardFailed(
                f"snapshot {plan.snapshot_id} is refused: it is broken, whatever the day",
                where=f"train {ctx.ds}",
                expected=expected,
                found=f"{number} {found}",
                hint=f"look at the day first: derm validate --ds {ctx.ds} --force",
            )
    what = f"snapshot {plan.snapshot_id} is refused"
    return hold(ctx.root, "train", ctx.ds, ctx.upstream, _checks(metrics, ctx.own_entities), what)


def _checks(metrics: Metrics, entities: Iterable[Entity]) -> Iterator[Check]:
    for number, bound in (
        ("auc", "auc_bound"),
        *((f"effective_rank_{e}", f"effective_rank_bound_{e}") for e in entities),
    ):
        found, least = metrics.get(number), _number(metrics, bound)
        yield Check(
            number=number,
            found=float(found) if isinstance(found, int | float) else None,
            bound=None if math.isnan(least) else least,
        )


def auc_metrics(parent: Metrics | None, new: Metrics, guards: GuardConfig) -> Metrics:
    """The lowest AUC that may follow, and what the day after is compared with.

    The bound lies `max_auc_drop` and three standard errors of the difference below the reference:
    the newest accepted day whose AUC is known to `max_auc_drop`, or as well as the reference
    before it. So a day of three users neither refuses a good day nor lets a bad one follow.

    Args:
        parent: metrics of yesterday's snapshot; None where there is none.
        new: `auc` and `auc_se` of the day.

    Returns:
        `auc_bound`, None where chance cannot be told from a fall, and the reference.
    """
    before, before_se = (_number(parent or {}, f"auc_reference{x}") for x in ("", "_se"))
    auc, error = _number(new, "auc"), _number(new, "auc_se")
    bound = before - guards.max_auc_drop - SIGMAS * math.hypot(before_se, error)
    known = not math.isnan(auc) and not math.isnan(error)
    if known and (math.isnan(before) or error <= max(guards.max_auc_drop, before_se)):
        before, before_se = auc, error
    return {
        name: None if math.isnan(value) else value
        for name, value in (
            ("auc_bound", bound),
            ("auc_reference", before),
            ("auc_reference_se", before_se),
        )
    }


def scored(scores: Scores, tasks: tuple[str, ...]) -> Metrics:
    """Every number of the primary task by its name; of others AUC, or all where there is none.

    Nothing where nothing was scored: there are no tasks, or no day before the first graph.
    """
    if not scores:
        return {}
    primary, *others = tasks
    known = {name: scores[primary][name] for name in _PRIMARY if name in scores[primary]}
    metrics: Metrics = {**known, **scores[primary], "scored_rows": scores[primary]["rows"]}
    del metrics["rows"]
    for task in others:
        found = {n: x for n, x in scores[task].items() if n == "auc" or "auc" not in scores[task]}
        metrics |= {f"{name}_{task}": x for name, x in found.items()}
    return metrics


def better(scores: Scores, before: Scores, tasks: tuple[str, ...]) -> bool:
    """Whether the primary task's AUC has risen; never where it is not known."""
    if not tasks:
        return False
    now, was = (found.get(tasks[0], {}).get("auc") for found in (scores, before))
    return now is not None and (was is None or now > was)


def _number(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return float(value) if isinstance(value, float | int) else math.nan
