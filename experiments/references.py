"""What a model's numbers are read against: what needs no embeddings, and what none can surpass.

Each reference sees the days that the baseline has seen, and predicts the next one.

Shapes: N impressions, F features, U users, P Pins, Z hidden quantities.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from experiments.quality import Metrics, of_predictions
from experiments.truth import DayTruth, Truth, ranked_by_truth
from feature_store.contracts.datasets import Feature
from feature_store.reading.entities import Arrays

POPULARITY, TREE = "popularity", "tree on the same features"
NO_MOOD, ORACLE = "best without the session's mood", "oracle"
REFERENCES = (POPULARITY, TREE, NO_MOOD, ORACLE)

_WEEK = 7
# The tree is trained anew on every so many days, on all days before.
_REFIT_DAYS = 3
# What a histogram can hold of a categorical feature; wider ones are left out.
_MAX_CATEGORIES = 255
_TREES = {"max_iter": 100, "learning_rate": 0.08, "max_leaf_nodes": 15, "min_samples_leaf": 100}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    """A day's impressions: what a model may see of them, and the truth.

    Attributes:
        number: of the day.
        rows: columns by name.
        pins: number [N] of each impression's Pin within the world; `users` likewise.
    """

    number: int
    rows: Arrays
    truth: DayTruth
    users: npt.NDArray[np.int64]
    pins: npt.NDArray[np.int64]


class References:
    """The references of one world.

    Args:
        features: what the model reads. Lists, sequences, contents and wide categories have no
            place in a tree, and are left out.
        rate: name of a Pin's smoothed rate of the label.
    """

    def __init__(self, truth: Truth, features: tuple[Feature, ...], rate: str, top_k: int) -> None:
        self.truth, self.rate, self.top_k = truth, rate, top_k
        numeric = [f.name for f in features if f.kind == "numeric"]
        narrow = [
            f.name for f in features if f.kind == "categorical" and f.cardinality <= _MAX_CATEGORIES
        ]
        self._columns = [*numeric, *narrow, "surface"]
        self._categorical = np.arange(len(self._columns)) >= len(numeric)
        self._past: list[Day] = []
        self._tree: HistGradientBoostingClassifier | None = None
        self._known = np.empty(0, bool)
        self._mean: HistGradientBoostingRegressor | None = None

    def see(self, day: Day) -> None:
        """Add a day to what is known."""
        self._past.append(day)

    def foretell(self, day: Day) -> dict[str, Metrics]:
        """What each reference says about a day, measured."""
        chances = {
            POPULARITY: np.nan_to_num(day.rows[self.rate].astype(np.float64)),
            TREE: self._by_tree(day),
            NO_MOOD: self._by_lasting_truth(day),
            ORACLE: day.truth.chance_N,
        }
        found = {
            name: of_predictions(chance_N, day.truth, day.number)
            for name, chance_N in chances.items()
        }
        positive = day.truth.label_N() == 1
        if positive.any():
            lists = {POPULARITY: self._most_popular(day, positive), NO_MOOD: self._best(day)}
            for name, top_NK in lists.items():
                hits = (top_NK == day.pins[positive, None]).any(axis=1)
                found[name][f"recall_at_{self.top_k}"] = float(hits.mean())
        return found

    def _by_tree(self, day: Day) -> Floats:
        """Trained on the days before, with the labels that are known by then."""
        if self._tree is None or not len(self._past) % _REFIT_DAYS:
            x_NF = np.concatenate([self._features(past) for past in self._past])
            y_N = np.concatenate([past.truth.label_N(day.number - 1) for past in self._past])
            # Counts of a first day are all missing, which a histogram cannot hold.
            self._known = ~np.isnan(x_NF).all(axis=0)
            tree = HistGradientBoostingClassifier(
                categorical_features=self._categorical[self._known], random_state=0, **_TREES
            )
            self._tree = tree.fit(x_NF[:, self._known], y_N)
        chance_N: Floats = self._tree.predict_proba(self._features(day)[:, self._known])[:, 1]
        return chance_N

    def _by_lasting_truth(self, day: Day) -> Floats:
        """The mean of the true chance, given all that is hidden and outlasts a session."""
        if self._mean is None:
            z_NZ = np.concatenate([past.truth.hidden_NZ for past in self._past])
            p_N = np.concatenate([past.truth.chance_N for past in self._past])
            mean = HistGradientBoostingRegressor(loss="poisson", random_state=0, max_iter=300)
            self._mean = mean.fit(z_NZ, p_N)
        found: Floats = self._mean.predict(day.truth.hidden_NZ)
        return found

    def _most_popular(self, day: Day, positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """The Pins [positives, K] with most positives of the last week, the same for everybody."""
        recent = self._past[-_WEEK:]
        pins = np.concatenate([x.pins[x.truth.label_N(day.number - 1) == 1] for x in recent])
        top = np.argsort(-np.bincount(pins), kind="stable")[: self.top_k]
        return np.broadcast_to(top, (int(positive.sum()), len(top)))

    def _best(self, day: Day) -> npt.NDArray[np.int64]:
        """The Pins [positives, K] most likely to be shown and to be positives, by the truth."""
        users = day.users[day.truth.label_N() == 1]
        distinct, of = np.unique(users, return_inverse=True)
        return ranked_by_truth(self.truth, day.number, distinct, self.top_k)[of]

    def _features(self, day: Day) -> Floats:
        return np.stack([day.rows[name] for name in self._columns], axis=1).astype(np.float64)
