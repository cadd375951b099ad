"""Which numbers the report draws, as data: one panel per number, with the bound that guards it."""

from dataclasses import dataclass

from feature_store.contracts.base import ENTITIES
from jobs.recipes import Recipe
from jobs.rendering.numbers import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small chart: a number of a step, a line per upstream.

    Attributes:
        note: what a reader should know to judge it.
        lowest: the bound of a guard on a day of many; a value below stops such a day.
        bound_metric: the metric of the same step that records the bound of a guard for the day,
            which is lower on a small one.
        draws_bound: the recorded bounds are drawn; others would flatten the line.
        reference: a value that means something, such as 1 for a calibrated model.
    """

    title: str
    note: str
    step: str
    metric: str
    kind: Kind
    lowest: float | None = None
    bound_metric: str = ""
    draws_bound: bool = False
    reference: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Panels that answer one question.

    Attributes:
        of_rankers: a line per ranker, not per upstream.
    """

    name: str
    question: str
    panels: tuple[Panel, ...]
    of_rankers: bool = False


_PLURAL = {"user": "users", "pin": "Pins"}


def sections(recipe: Recipe) -> tuple[Section, ...]:
    """The report, with the bounds of a recipe."""
    return (
        Section(
            name="Model",
            question="Does it still predict the new day, before it has learned from it?",
            panels=_model(),
        ),
        Section(
            name="Coverage",
            question="Whom of today's events did readers find in yesterday's embeddings?",
            panels=_coverage(recipe),
        ),
        Section(
            name="Stability",
            question="Do vectors stay where rankers learned to expect them?",
            panels=_stability(recipe),
        ),
        Section(
            name="Health",
            question="Are the vectors still different from each other, and of one length?",
            panels=_health(recipe),
        ),
        Section(
            name="Index and publishing",
            question="Are Pins found, and what was written to the online store?",
            panels=_online(recipe),
        ),
        Section(
            name="Rankers",
            question="What are the embeddings worth to those who rank with them?",
            panels=_ranking(),
            of_rankers=True,
        ),
    )


def _model() -> tuple[Panel, ...]:
    return (
        Panel(
            title="AUC",
            note="on the new day's impressions, before training on it",
            step="train",
            metric="auc",
            kind="ratio",
            bound_metric="auc_bound",
            draws_bound=True,
        ),
        Panel(
            title="Normalised entropy",
            note="below 1 beats predicting the mean rate",
            step="train",
            metric="ne",
            kind="ratio",
            reference=1.0,
        ),
        Panel(
            title="Calibration",
            note="predicted by positives that arrived on the day",
            step="train",
            metric="calibration_arrived",
            kind="ratio",
            reference=1.0,
        ),
        Panel(
            title="AUC, labels final",
            note="of the day whose labels became final, by the model that scored it then",
            step="train",
            metric="auc_mature",
            kind="ratio",
        ),
        Panel(
            title="Calibration, labels final",
            note="the same day: predicted by positives, whenever they arrived",
            step="train",
            metric="calibration_mature",
            kind="ratio",
            reference=1.0,
        ),
        Panel(
            title="Rows trained on",
            note="events of the day",
            step="train",
            metric="rows",
            kind="count",
        ),
    )


def _coverage(recipe: Recipe) -> tuple[Panel, ...]:
    return tuple(
        Panel(
            title=f"{what} covered, {_PLURAL[entity]}",
            note=f"share of the day's {of} known yesterday",
            step="verify",
            metric=f"coverage_{metric}_{entity}",
            kind="share",
            lowest=recipe.guards.min_coverage or None,
            bound_metric=f"coverage_{metric}_bound_{entity}" if recipe.guards.min_coverage else "",
        )
        for entity in ENTITIES
        for what, metric, of in (
            ("Rows", "rows", "events"),
            ("Entities", "entities", f"{_PLURAL[entity]}"),
        )
    )


def _stability(recipe: Recipe) -> tuple[Panel, ...]:
    bound = recipe.guards.min_day_to_day_cosine
    shown = (
        ("Cosine to yesterday, {}", "cosine", "every entity of both pools", bound),
        ("Cosine to yesterday, updated {}", "cosine_updated", "only those seen today", bound),
        ("Cosine within the day, {}", "intraday_cosine", "first to last embedding", None),
        ("Norm, {}", "norm", "mean length of a vector", None),
    )
    return tuple(
        Panel(
            title=title.format(_PLURAL[entity]),
            note=note,
            step="verify",
            metric=f"{metric}_{entity}",
            kind="cosine",
            lowest=lowest,
            bound_metric="" if lowest is None else f"{metric}_bound_{entity}",
        )
        for entity in ENTITIES
        for title, metric, note, lowest in shown
    )


def _health(recipe: Recipe) -> tuple[Panel, ...]:
    pools = tuple(
        Panel(
            title=f"Effective rank, {_PLURAL[entity]}",
            note="dimensions in use in the pool",
            step="verify",
            metric=f"effective_rank_{entity}",
            kind="plain",
            lowest=recipe.guards.min_effective_rank,
            bound_metric=f"effective_rank_bound_{entity}",
        )
        for entity in ENTITIES
    )
    trained = tuple(
        Panel(
            title=f"Effective rank after training, {_PLURAL[entity]}",
            note="of the new snapshot's vectors",
            step="train",
            metric=f"effective_rank_{entity}",
            kind="plain",
            lowest=recipe.guards.min_effective_rank,
            bound_metric=f"effective_rank_bound_{entity}",
        )
        for entity in ENTITIES
    )
    loss = Panel(
        title="Training loss",
        note="every task of the upstream together",
        step="train",
        metric="loss",
        kind="ratio",
    )
    return (*pools, *trained, loss)


def _ranking() -> tuple[Panel, ...]:
    return (
        Panel(
            title="Worth of the embeddings",
            note="AUC with them less AUC without, on the new day",
            step="evaluate",
            metric="worth",
            kind="difference",
            reference=0.0,
        ),
        Panel(
            title="AUC of rankers",
            note="on the new day, before learning it",
            step="evaluate",
            metric="auc",
            kind="ratio",
            bound_metric="auc_bound",
            draws_bound=True,
        ),
        Panel(
            title="Calibration of rankers",
            note="predicted by observed positives, calibrated as of the day before",
            step="calibrate",
            metric="calibration",
            kind="ratio",
            reference=1.0,
        ),
    )


def _online(recipe: Recipe) -> tuple[Panel, ...]:
    recall = recipe.index.recall_at_10
    pools = tuple(
        Panel(
            title=f"Pool of {_PLURAL[entity]}",
            note="entities with an embedding",
            step="verify",
            metric=f"pool_{entity}",
            kind="count",
            bound_metric=f"pool_bound_{entity}",
        )
        for entity in ENTITIES
    )
    shown: tuple[tuple[str, str, str, str, Kind, float | None], ...] = (
        ("Recall at 10", "against exact search", "index", "recall_at_10", "ratio", recall),
        ("Index build", "rebuilt, or warm-started", "index", "build_s", "seconds", None),
        ("Written", "keys sent to the idle slot", "publish", "written", "count", None),
        ("Removed", "keys pruned from the slot", "publish", "removed", "count", None),
        ("Sent", "size of the upload", "publish", "bytes", "bytes", None),
        ("Speed", "keys per second", "publish", "rows_per_s", "count", None),
    )
    online = tuple(
        Panel(title=title, note=note, step=step, metric=metric, kind=kind, lowest=lowest)
        for title, note, step, metric, kind, lowest in shown
    )
    return (*pools, *online)
