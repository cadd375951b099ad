"""What follows an impression: probabilities by these equations, and draws.

    p(click)      = sigmoid(bias_s + shock_s + taste_s <u, v> + query_s <q, v>
                            + popularity * pop(v) + position * log(1 + position))
    p(good|click) = sigmoid(good_bias + good_taste <u_lasting, v> + quality of the advertiser)
    p(converts)   = sigmoid(bias + taste <u_buying, v> + quality * quality of the advertiser)

of surface s, user u, Pin v, query topic q; <,> is a cosine with a hidden vector. A conversion
follows a click with p(converts), a view with `view_share` of it, after a log-normal delay, and is
attributed within its window. All arrays are by impression [N].
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.config import ATTRIBUTIONS, ClickConfig, ConversionConfig
from simulator.population import Floats, Ints

DAY_US = 86_400_000_000
ACTIONS = ("impression", "hide", "closeup", "save", "click")  # weakest first
NOT_CONVERTED = -1

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Affinities:
    """How well each Pin suits its viewer: cosines with hidden tastes.

    Attributes:
        lasting: long-term taste.
        present: taste at this moment of the session.
        buying: the second taste, which drives conversions.
        query: the topic that was searched or related to.
    """

    lasting: Floats
    present: Floats
    buying: Floats
    query: Floats


def click_probability(
    rules: ClickConfig,
    shock: npt.NDArray[np.float64],
    surface: Codes,
    affinities: Affinities,
    popularity: Floats,
    position: Ints,
) -> Floats:
    """Probability of a click; `shock` [3] shifts the log-odds of each surface on this day."""
    bias = (np.asarray(rules.bias) + shock).astype("f4")
    taste, query = np.asarray(rules.taste, "f4"), np.asarray(rules.query, "f4")
    odds = bias[surface] + taste[surface] * affinities.present
    odds += query[surface] * affinities.query
    odds += np.float32(rules.popularity) * popularity
    odds += np.float32(rules.position) * np.log1p(position.astype("f4"))
    return sigmoid(odds)


def good_click_probability(rules: ClickConfig, affinities: Affinities, quality: Floats) -> Floats:
    """Probability that a click is a good one; `quality` is the advertiser's."""
    return sigmoid(rules.good_bias + rules.good_taste * affinities.lasting + quality)


def conversion_probability(
    rules: ConversionConfig, affinities: Affinities, quality: Floats, noisy: Flags
) -> Floats:
    """Probability that a click converts, within any time; `noisy` advertisers report at random."""
    odds = rules.bias + rules.taste * affinities.buying + rules.quality * quality
    return np.where(noisy, np.float32(rules.noisy_rate), sigmoid(odds)).astype("f4")


def attributed_probability(rules: ConversionConfig, p_click: Floats, p_converts: Floats) -> Floats:
    """Probability that an impression gets a conversion within its attribution window."""

    def in_time(days: float) -> float:
        z = (math.log(days) - _log_delay(rules)) / rules.delay_sigma
        return 0.5 * math.erfc(-z / math.sqrt(2))

    after_click = np.float32(in_time(rules.click_days))
    after_view = np.float32(rules.view_share * in_time(rules.view_days))
    return (p_converts * (p_click * after_click + (1 - p_click) * after_view)).astype("f4")


def draw_conversions(
    rules: ConversionConfig,
    rng: np.random.Generator,
    click: Flags,
    p_converts: Floats,
    types: npt.NDArray[np.float64],
    ts: Ints,
) -> tuple[Codes, Codes, Ints]:
    """Draw what converts, and when the conversion is heard of.

    Args:
        types: cumulative shares [N, 4] of the conversion types of each Pin's advertiser.

    Returns:
        Type (-1 for none), attribution, and time of arrival on the clock of `ts`.
    """
    probability = np.where(click, p_converts, rules.view_share * p_converts)
    converts = np.flatnonzero(rng.random(len(click), "f4") < probability)
    delay_days = rng.lognormal(_log_delay(rules), rules.delay_sigma, len(converts))
    drawn = rng.random((len(converts), 1))
    kind = (drawn >= types[converts, :-1]).sum(axis=1)
    attributed = delay_days <= np.where(click[converts], rules.click_days, rules.view_days)
    converts, kind, delay_days = converts[attributed], kind[attributed], delay_days[attributed]
    conversion = np.full(len(click), NOT_CONVERTED, np.int8)
    conversion[converts] = kind
    attribution = np.where(click, ATTRIBUTIONS.index("click"), ATTRIBUTIONS.index("view"))
    arrival = np.full(len(click), np.iinfo(np.int64).max)
    arrival[converts] = ts[converts] + (delay_days * DAY_US).astype(np.int64)
    return conversion, attribution.astype(np.int8), arrival


def draw_actions(
    rules: ClickConfig, rng: np.random.Generator, click: Flags, affinities: Affinities
) -> Codes:
    """The strongest action that followed, as an index into `ACTIONS`."""
    action = np.zeros(len(click), np.int8)
    for name, odds in (
        ("hide", rules.hide_bias - rules.other_taste * affinities.present),
        ("closeup", rules.closeup_bias + rules.other_taste * affinities.present),
        ("save", rules.save_bias + rules.other_taste * affinities.lasting),
    ):
        action[rng.random(len(click), "f4") < sigmoid(odds)] = ACTIONS.index(name)
    action[click] = ACTIONS.index("click")
    return action


def draw_durations(rng: np.random.Generator, click: Flags, good: Flags) -> Floats:
    """Seconds: a glance without a click, up to 30 after a click, more after a good one."""
    draw = rng.standard_exponential(len(click), "f4")
    short = 30.0 * (1.0 - np.exp(-draw))
    return np.where(good, 30.0 + 60.0 * draw, np.where(click, short, draw)).astype("f4")


def sigmoid(odds: npt.NDArray) -> Floats:
    """1 / (1 + e^-odds), in float32."""
    return np.asarray(1.0 / (1.0 + np.exp(-odds)), "f4")


def _log_delay(rules: ConversionConfig) -> float:
    """Mean of the logarithm of a delay whose own mean is `delay_mean_days`."""
    return math.log(rules.delay_mean_days) - rules.delay_sigma**2 / 2
