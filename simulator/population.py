"""Who and what exists: users, Pins and advertisers with their hidden vectors.

Arrays are indexed by entity number over everybody who ever lives in the world; `alive` picks those
of a day. Legend: U users, P Pins, K topics, D taste dimensions, C content dimensions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulator.config import CONVERSION_TYPES, WorldConfig
from simulator.randomness import Stream, generator

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_USER_TOPICS = 5
_PIN_TOPICS = 3


@dataclass(frozen=True, slots=True)
class Spans:
    """First day [N] and first day without [N] of each entity."""

    born: Ints
    gone: Ints

    def alive(self, day: int) -> Ints:
        """Numbers of the entities that exist on a day, ascending."""
        return np.flatnonzero((self.born <= day) & (self.gone > day))


class Population:
    """Everything that does not depend on the day, and where tastes are on a day."""

    def __init__(self, config: WorldConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.users = draw_spans(config.users, config.churn, config.days, seed, Stream.USER_SPANS)
        self.pins = draw_spans(config.pins, config.churn, config.days, seed, Stream.PIN_SPANS)
        rng = generator(seed, Stream.TOPICS)
        self.topics_KD = unit(rng.standard_normal((config.taste.topics, config.taste.dim), "f4"))
        self._draw_users()
        self._draw_pins()
        self._draw_advertisers()

    def _draw_users(self) -> None:
        config, rng, num = self.config, generator(self.seed, Stream.USERS), len(self.users.born)
        self.user_topics, taste = self._mixture(rng, num, _USER_TOPICS, 0.2)
        self.user_start_UD = unit(taste)
        self.user_second_UD = unit(self._mixture(rng, num, _USER_TOPICS, 0.2)[1])
        mean = config.impressions_per_user / config.impressions_per_session
        shape = config.activity_shape
        self.user_sessions = rng.gamma(shape, mean / shape, num)
        self.user_country = rng.choice(20, num, p=zipf_shares(20, 1.2))
        self.user_age = rng.choice(6, num, p=[0.2, 0.3, 0.2, 0.14, 0.1, 0.06])
        self.user_gender = rng.choice(3, num, p=[0.65, 0.25, 0.1])
        self.user_device = rng.choice(4, num, p=[0.45, 0.35, 0.15, 0.05])

    def _draw_pins(self) -> None:
        config, rng, num = self.config, generator(self.seed, Stream.PINS), len(self.pins.born)
        self.pin_topics, taste = self._mixture(rng, num, _PIN_TOPICS, 0.1)
        noise = directions(rng, taste.shape) * np.float32(config.taste.pin_noise)
        self.pin_PD = unit(unit(taste) + noise)
        rank = rng.permutation(num) + 1.0
        self.pin_weight = rank**-config.zipf
        log_weight = np.log(self.pin_weight)
        standard = (log_weight - log_weight.mean()) / log_weight.std()
        self.pin_popularity = np.clip(standard, -3.0, 3.0).astype("f4")
        self.pin_advertiser = rng.choice(
            config.advertisers, num, p=zipf_shares(config.advertisers, 0.7)
        )
        self.pin_creative = rng.choice(4, num, p=[0.5, 0.2, 0.2, 0.1])
        self.pin_price = np.exp(rng.normal(3.5, 1.0, num)).astype("f4")

    def _draw_advertisers(self) -> None:
        config, rng = self.config, generator(self.seed, Stream.ADVERTISERS)
        num = config.advertisers
        self.advertiser_quality = rng.normal(0.0, 0.5, num).astype("f4")
        self.advertiser_noisy = rng.random(num) < config.conversion.noisy_advertisers
        mix = rng.dirichlet(np.full(len(CONVERSION_TYPES), 0.5), num)
        self.advertiser_types = np.cumsum(mix, axis=1)

    def _mixture(
        self, rng: np.random.Generator, num: int, count: int, alpha: float
    ) -> tuple[Ints, Floats]:
        """Draw `count` topics [num, count], the heaviest first, and their weighted sum [num, D]."""
        topics = rng.integers(0, self.config.taste.topics, (num, count))
        weights = rng.standard_gamma(alpha, (num, count)) + 1e-12
        order = np.argsort(-weights, axis=1, kind="stable")
        topics = np.take_along_axis(topics, order, axis=1)
        weights = np.take_along_axis(weights, order, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        vectors = self.topics_KD[topics]
        return topics, np.einsum("nk,nkd->nd", weights.astype("f4"), vectors)

    @cached_property
    def content(self) -> Floats:
        """What anyone can see of a Pin: a noisy random view [P, C] of its hidden vector."""
        config, rng = self.config, generator(self.seed, Stream.CONTENT)
        view = rng.standard_normal((config.taste.dim, config.content_dim), "f4")
        view /= np.float32(np.sqrt(config.content_dim))
        noise = directions(rng, (len(self.pin_PD), config.content_dim))
        return unit(self.pin_PD @ view + noise * np.float32(config.taste.content_noise))

    def taste_on(self, day: int) -> Floats:
        """Long-term taste [U, D] of every user on a day, unit length.

        A random walk from the start: norm(g(0) + drift * W(day)) with W a Brownian motion whose
        steps have length 1 on average. W is found at any day by bisection (Levy's bridge), so no
        earlier day is visited.
        """
        horizon = 1 << self.config.days.bit_length()
        walk = brownian(self.seed, day, horizon, self.user_start_UD.shape)
        return unit(self.user_start_UD + np.float32(self.config.taste.drift) * walk)


def brownian(seed: int, day: int, horizon: int, shape: tuple[int, ...]) -> Floats:
    """Position [N, D] on a day of N Brownian motions that start at 0; E|W(t)|^2 = t.

    Args:
        horizon: a power of two, at least `day`; it is part of the motion's definition.
    """
    low, high = 0, horizon
    at_low: Floats = np.zeros(shape, np.float32)
    at_high = directions(generator(seed, Stream.DRIFT, high), shape)
    at_high *= np.float32(np.sqrt(high))
    while day not in (low, high):
        middle = (low + high) // 2
        step = directions(generator(seed, Stream.DRIFT, middle), shape)
        step *= np.float32(np.sqrt((high - low) / 4))
        between: Floats = (at_low + at_high) / np.float32(2) + step
        if day < middle:
            high, at_high = middle, between
        else:
            low, at_low = middle, between
    return at_low if day == low else at_high


def unit(vectors: npt.NDArray) -> Floats:
    """Rows of [N, D] scaled to length 1."""
    norm = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    scaled: Floats = vectors / np.maximum(norm, np.float32(1e-12))[:, None]
    return scaled


def directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Gaussian vectors [N, D] of mean square length 1."""
    vectors: Floats = rng.standard_normal(shape, "f4")
    vectors *= np.float32(1 / np.sqrt(shape[1]))
    return vectors


def zipf_shares(num: int, exponent: float) -> npt.NDArray[np.float64]:
    """Shares [N] of the ranks 1 to N."""
    weights = np.arange(1, num + 1) ** -exponent
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def draw_spans(num: int, churn: float, days: int, seed: int, stream: Stream) -> Spans:
    """Lives of a stationary population: `num` on day 0, `churn` of them arriving every day."""
    rng = generator(seed, stream)
    arrivals = round(num * churn)
    born = np.concatenate([np.zeros(num, np.int64), np.repeat(np.arange(1, days), arrivals)])
    life = 1 + rng.exponential(1 / churn, len(born)) if churn else np.inf
    gone = np.minimum(born + life, days + 1.0).astype(np.int64)
    # Those who are there on day 0 arrived before it, by an age of the same distribution.
    age = np.zeros(len(born), np.int64)
    if churn:
        age[:num] = rng.exponential(1 / churn, num).astype(np.int64)
    return Spans(born - age, gone)
