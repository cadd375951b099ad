"""What a day scored before it was trained on: as numbers of the day, and against another pass."""

from feature_store.contracts.manifests import Metrics
from models.training.loop import Scores

_PRIMARY = (
    *("auc", "auc_se", "pr_auc", "logloss", "ne", "base_rate"),
    *("calibration", "calibration_arrived", "ece"),
)


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
