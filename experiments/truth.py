"""What is known of a simulated day and of no real one: every probability, and how it ended.

Shapes: N impressions, Z hidden quantities.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from simulator.behaviour import DayLog, simulate_day
from simulator.outcomes import DAY_US
from simulator.population import Population, unit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_ROW_DIGITS = 9
_MOODS = 32


@dataclass(frozen=True, slots=True)
class DayTruth:
    """One day's impressions, in the order of their numbers.

    Attributes:
        chance_N: probability of the label.
        heard_N: number of the day on which the label becomes known; -1 where it stays 0.
        hidden_NZ: what decides the chance and lasts beyond a session: how well the Pin suits the
            user's tastes and the query, popularity, quality, place and surface. What passes with a
            session, its mood, is not among it.
    """

    chance_N: Floats
    heard_N: Ints
    hidden_NZ: Floats

    def label_N(self, known_by: int | None = None) -> Floats:  # noqa: N802 - a shape suffix
        """The label: 0 or 1, as known by the end of a day, or whenever it arrives."""
        told = self.heard_N >= 0
        if known_by is not None:
            told &= self.heard_N <= known_by
        return told.astype(np.float64)

    def take(self, rows: Ints) -> "DayTruth":
        """Of some impressions."""
        return DayTruth(self.chance_N[rows], self.heard_N[rows], self.hidden_NZ[rows])


class Truth:
    """The hidden side of a world.

    Args:
        label: whose chances are asked for: `click` or `conversion`.
    """

    def __init__(self, population: Population, label: str) -> None:
        self.population, self.label = population, label

    def day(self, number: int) -> DayTruth:
        """The truth of a day of the world, counted from 0."""
        log = simulate_day(self.population, number)
        if self.label == "click":
            chance_N, positive_N, delay_N = log.p_click, log.click, np.zeros(len(log.ts), np.int64)
        else:
            chance_N, positive_N = log.p_conversion, log.conversion >= 0
            delay_N = log.arrival // DAY_US
        return DayTruth(
            chance_N=chance_N.astype(np.float64),
            heard_N=np.where(positive_N, number + delay_N, -1),
            hidden_NZ=self._hidden(log, number),
        )

    def _hidden(self, log: DayLog, number: int) -> Floats:
        world = self.population
        taste_ND, pin_ND = world.taste_on(number)[log.user], world.pin_PD[log.pin]
        second_ND = world.user_second_UD[log.user]
        columns = [
            np.einsum("nd,nd->n", taste_ND, pin_ND),
            np.einsum("nd,nd->n", second_ND, pin_ND),
            np.einsum("nd,nd->n", taste_ND, second_ND),
            np.where(log.query < 0, 0, np.einsum("nd,nd->n", world.topics_KD[log.query], pin_ND)),
            world.pin_popularity[log.pin],
            world.advertiser_quality[log.advertiser],
            world.advertiser_noisy[log.advertiser],
            log.position,
            log.surface,
        ]
        return np.stack(columns, axis=1).astype(np.float64)


def impression_numbers(event_ids: pa.Array | pa.ChunkedArray) -> Ints:
    """The number within its day of each impression, from ids such as `e0003-000000042`."""
    digits = pc.utf8_slice_codeunits(event_ids, start=-_ROW_DIGITS)
    numbers: Ints = digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers


def entity_numbers(ids: pa.Array | pa.ChunkedArray) -> Ints:
    """The number of each user or Pin within the world, from ids such as `u0000042`."""
    digits = pc.utf8_slice_codeunits(ids, start=1)
    numbers: Ints = digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers


def expected_auc(score_N: Floats, chance_N: Floats) -> float:
    """The AUC that scores have on average over all labels that these chances may draw.

    The chance that a positive outranks a negative, each row being one with its chance and the other
    with the rest: sum over pairs of p_i (1 - p_j) [s_i > s_j], ties a half, by that of all pairs.
    Labels drawn once are a hundred times as noisy. NaN where no pair is possible.
    """
    _, rank_N = np.unique(score_N, return_inverse=True)
    positive_R = np.bincount(rank_N, chance_N)
    negative_R = np.bincount(rank_N, 1 - chance_N)
    self_R = np.bincount(rank_N, chance_N * (1 - chance_N))  # no row is paired with itself
    below_R = np.cumsum(negative_R) - negative_R
    wins = (positive_R * below_R).sum() + (positive_R * negative_R - self_R).sum() / 2
    pairs = chance_N.sum() * (1 - chance_N).sum() - (chance_N * (1 - chance_N)).sum()
    return float(wins / pairs) if pairs > 0 else float("nan")


def ranked_by_truth(truth: Truth, number: int, users: Ints, k: int) -> Ints:
    """The k Pins [U, k] that are likeliest to be shown to a user on a day and to be positives.

    Over the moods that a session may have: exposure given the mood's topic, times the chance of the
    label on the home feed in the middle of a session. No list without a view of the session is
    better, but for that simplification.
    """
    world, config = truth.population, truth.population.config
    stock = world.pins.alive(number)
    taste_UD, pin_PD = world.taste_on(number)[users], world.pin_PD[stock]
    weight_P = world.pin_weight[stock]
    topic_P = world.pin_topics[stock, 0]
    per_topic_K = np.bincount(topic_P, weight_P, config.taste.topics)
    random = np.random.default_rng(number)
    scale = config.taste.session_pull / np.sqrt(config.taste.dim)
    score_UP = np.zeros((len(users), len(stock)))
    sells_UP = _sells(truth, users, stock, taste_UD)
    for _ in range(_MOODS):
        mood_UD = taste_UD + scale * random.standard_normal(taste_UD.shape)
        topic_UK = np.exp(5.0 * (mood_UD @ world.topics_KD.T))
        topic_UK /= topic_UK.sum(axis=1, keepdims=True)
        of_topic_UP = (topic_UK / np.maximum(per_topic_K, 1e-12))[:, topic_P]
        shown_UP = weight_P * (config.explore / weight_P.sum() + (1 - config.explore) * of_topic_UP)
        present_UP = mood_UD @ pin_PD.T / np.linalg.norm(mood_UD, axis=1, keepdims=True)
        odds_UP = config.click.bias[0] + config.click.taste[0] * present_UP
        odds_UP += config.click.popularity * world.pin_popularity[stock]
        score_UP += shown_UP * sells_UP / (1 + np.exp(-odds_UP))
    best = np.argpartition(-score_UP, min(k, len(stock)) - 1, axis=1)[:, :k]
    return stock[best]


def _sells(truth: Truth, users: Ints, stock: Ints, taste_UD: npt.NDArray[np.float32]) -> Floats:
    """Chance [U, P] that a click converts; 1 where the label is the click."""
    world, rules = truth.population, truth.population.config.conversion
    if truth.label == "click":
        return np.ones((len(users), len(stock)))
    buying_UD = unit(taste_UD + world.user_second_UD[users])
    advertiser_P = world.pin_advertiser[stock]
    odds_UP = rules.bias + rules.taste * (buying_UD @ world.pin_PD[stock].T)
    odds_UP = odds_UP + rules.quality * world.advertiser_quality[advertiser_P]
    noisy_P = world.advertiser_noisy[advertiser_P]
    return np.where(noisy_P, rules.noisy_rate, 1 / (1 + np.exp(-odds_UP)))
