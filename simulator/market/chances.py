"""The chance of everything that may follow an exposure, whoever shows it.

Log-odds are sums of how a Pin suits its user (by products of hidden vectors, or by the leaves of
random trees), of what is the surface's, and of effects that belong to an id alone: no feature
shows them. Legend: N exposures, D taste dimensions, T trees.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.market.config import MarketConversions
from simulator.market.exposures import Exposures
from simulator.market.luck import Draw, uniform
from simulator.market.population import MarketPopulation
from simulator.outcomes import sigmoid
from simulator.population import Floats, Ints
from simulator.randomness import Stream, generator

_TREE_MATCH = 0.6  # of a query and a Pin of that topic, where no vectors are compared
_TREE_LEVEL = 0.35  # so that trees click as often as vectors, whose Pins are of the mood's topic
_NO_TOPIC = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """How well each Pin [N] suits its user: about -1 to 1.

    Attributes:
        present: the mood of the moment; lasting: what the user always likes; buying: what the user
            buys; query: what was asked for; style: what no content shows.
    """

    present: Floats
    lasting: Floats
    buying: Floats
    query: Floats
    style: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Chances:
    """Probabilities [N].

    Attributes:
        good: that a click is a good one.
        others: of each other action, in the order of the configuration.
        converts: that a click converts at any time; 0 for organic Pins.
    """

    click: Floats
    good: Floats
    others: tuple[Floats, ...]
    converts: Floats


def fits_of(world: MarketPopulation, shown: Exposures) -> Fits:
    """How well the Pins suit their users."""
    return (
        _by_trees(world, shown) if world.config.taste.fit == "trees" else _by_vectors(world, shown)
    )


def chances_of(world: MarketPopulation, shown: Exposures, fits: Fits | None = None) -> Chances:
    """The chances of what may follow each exposure."""
    config, rules = world.config, world.config.click
    fits = fits or fits_of(world, shown)
    surface, is_ad = shown.surface, world.pin_is_ad[shown.pin]
    quality = np.where(is_ad, world.advertiser_quality[world.pin_advertiser[shown.pin]], 0.0)
    odds = day_bias(world, shown.day)[surface] + _of(rules.ad, surface) * is_ad
    odds += _of(rules.present, surface) * fits.present + _of(rules.lasting, surface) * fits.lasting
    odds += _of(rules.query, surface) * fits.query + np.float32(rules.style) * fits.style
    odds += world.user_bias[shown.user] + world.pin_bias[shown.pin]
    odds += np.float32(rules.popularity) * world.pin_popularity[shown.pin]
    odds += _of(rules.position, surface) * np.log1p(shown.position.astype("f4"))
    odds += liking(world, shown.user, shown.pin)
    good = rules.good_bias + rules.good_taste * fits.lasting + quality
    return Chances(
        click=sigmoid(odds),
        good=sigmoid(good),
        others=tuple(
            sigmoid(
                _of(action.bias, surface)
                + action.present * fits.present
                + action.lasting * fits.lasting
                + world.pin_bias[shown.pin]
            )
            for _, action in config.others
        ),
        converts=np.where(is_ad, _converts(world, shown.pin, fits, quality), 0.0).astype("f4"),
    )


def day_bias(world: MarketPopulation, day: int) -> Floats:
    """Log-odds [3] of a click on each surface on a day, before all else."""
    rules = world.config.click
    shock = generator(world.seed, Stream.DAY, day).normal(0.0, rules.day_shock, len(rules.bias))
    return (np.asarray(rules.bias) + shock).astype("f4")


def liking(world: MarketPopulation, user: Ints, pin: Ints) -> Floats:
    """What a user's liking of an advertiser adds [N]: evenly spread, 0 for organic Pins."""
    advertiser = world.pin_advertiser[pin]
    wide = math.sqrt(12.0) * world.config.click.advertiser
    added = np.zeros(len(pin), "f4")
    ads = np.flatnonzero(advertiser >= 0)
    luck = uniform(world.seed, Draw.LIKING, user[ads], advertiser[ads])
    added[ads] = wide * (luck - 0.5)
    return added


def attributed(rules: MarketConversions, chances: Chances) -> Floats:
    """Chance [N] that an exposure gets a conversion within its attribution window."""
    after_click, after_view = attributed_by_cause(rules, chances)
    return chances.click * after_click + (1 - chances.click) * after_view


def attributed_by_cause(rules: MarketConversions, chances: Chances) -> tuple[Floats, Floats]:
    """Chance [N] of a conversion within its window after a click, and after none."""
    after_click = np.float32(_in_time(rules, rules.click_days))
    after_view = np.float32(rules.view_share * _in_time(rules, rules.view_days))
    return chances.converts * after_click, chances.converts * after_view


def log_delay(rules: MarketConversions) -> float:
    """Mean of the logarithm of a delay whose own mean is `delay_mean_days`."""
    return math.log(rules.delay_mean_days) - rules.delay_sigma**2 / 2


def _in_time(rules: MarketConversions, days: float) -> float:
    z = (math.log(days) - log_delay(rules)) / rules.delay_sigma
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _converts(world: MarketPopulation, pin: Ints, fits: Fits, quality: Floats) -> Floats:
    rules = world.config.conversion
    odds = rules.bias + rules.buying * fits.buying + rules.quality * quality
    odds = odds + rules.style * fits.style
    noisy = world.advertiser_noisy[world.pin_advertiser[pin]]
    return np.where(noisy, np.float32(rules.noisy_rate), sigmoid(odds))


def _by_vectors(world: MarketPopulation, shown: Exposures) -> Fits:
    pin_ND = world.pin_PD[shown.pin]
    mood_ND = world.topics_KD[shown.topic] + world.user_own_UD[shown.user]
    length = np.sqrt(np.einsum("nd,nd->n", mood_ND, mood_ND))
    wide = np.float32(math.sqrt(world.config.taste.style_dim))
    style = _dot(world.user_style_US[shown.user], world.pin_style_PS[shown.pin])
    return Fits(
        present=_dot(mood_ND, pin_ND) / length,
        lasting=_dot(world.user_lasting_UD[shown.user], pin_ND),
        buying=_dot(world.user_buying_UD[shown.user], pin_ND),
        query=_asked(world, shown, pin_ND),
        style=style * wide,
    )


def _asked(world: MarketPopulation, shown: Exposures, pin_ND: Floats) -> Floats:
    """How close a Pin is to the topic searched, or to the Pin that it is related to."""
    match = np.zeros(len(shown), "f4")
    searched, related = np.flatnonzero(shown.query >= 0), np.flatnonzero(shown.source >= 0)
    match[searched] = _dot(world.topics_KD[shown.query[searched]], pin_ND[searched])
    match[related] = _dot(world.pin_PD[shown.source[related]], pin_ND[related])
    return match


def _by_trees(world: MarketPopulation, shown: Exposures) -> Fits:
    pin_NT = world.tree_pin_PT[shown.pin]
    mood_NT = world.tree_own_UT[shown.user] ^ world.tree_topic_KT[shown.topic]
    topic = world.pin_topic[shown.pin]
    source = np.where(shown.source >= 0, world.pin_topic[shown.source], _NO_TOPIC)
    same = (topic == shown.query) | (topic == source)
    return Fits(
        present=_leaves(world, 0, mood_NT, pin_NT),
        lasting=_leaves(world, 1, world.tree_lasting_UT[shown.user], pin_NT),
        buying=_leaves(world, 2, world.tree_buying_UT[shown.user], pin_NT),
        query=np.where(same, np.float32(_TREE_MATCH), np.float32(0)),
        style=np.zeros(len(shown), "f4"),
    )


def _leaves(
    world: MarketPopulation,
    forest: int,
    user_NT: npt.NDArray[np.uint8],
    pin_NT: npt.NDArray[np.uint8],
) -> Floats:
    leaves = world.tree_leaves[forest]
    trees = np.arange(leaves.shape[0], dtype=np.int32) * 64
    at_NT = trees + user_NT.astype(np.int32) * 8 + pin_NT
    total: Floats = leaves.reshape(-1)[at_NT].sum(axis=1)
    return total + np.float32(_TREE_LEVEL)


def _of(values: tuple[float, float, float], surface: npt.NDArray[np.int8]) -> Floats:
    chosen: Floats = np.asarray(values, "f4")[surface]
    return chosen


def _dot(left_ND: Floats, right_ND: Floats) -> Floats:
    product: Floats = np.einsum("nd,nd->n", left_ND, right_ND)
    return product
