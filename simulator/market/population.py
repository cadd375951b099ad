"""Who and what exists in a market: users, Pins, ads, advertisers and their items.

Arrays are indexed by entity number over everybody who ever lives in the market. Pins come first
and ads after them: both are Pins. Legend: U users, P Pins, A advertisers, I items, K topics, D
taste dimensions, S style dimensions, T trees, N interests of a user.
"""

import math
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simulator.market.config import CONVERSION_TYPES, OBJECTIVES, MarketConfig
from simulator.population import Floats, Spans, directions, draw_spans, unit, zipf_shares
from simulator.randomness import Stream, generator

_ACTIVE_TOPICS = 3  # that a Pin may be about
_BITS = 3  # of a user, and of a Pin, that a tree looks at


class MarketPopulation:
    """Everything that does not depend on the time."""

    def __init__(self, config: MarketConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.users = draw_spans(config.users, config.churn, config.days, seed, Stream.USER_SPANS)
        self.pins = _one_after_the_other(
            draw_spans(config.pins, config.churn, config.days, seed, Stream.PIN_SPANS),
            draw_spans(config.ads, config.churn, config.days, seed, Stream.MARKET_AD_SPANS),
        )
        rng, taste = generator(seed, Stream.TOPICS), config.taste
        self.topics_KD = unit(rng.standard_normal((taste.topics, taste.dim), "f4"))
        self._draw_advertisers()
        self._draw_pins()
        self._draw_users()
        if taste.fit == "trees":
            self._draw_trees()

    def _draw_users(self) -> None:
        config, taste = self.config, self.config.taste
        rng, num = generator(self.seed, Stream.MARKET_USERS), len(self.users.born)
        self.user_topics = rng.integers(0, taste.topics, (num, taste.interests))
        weights = rng.standard_gamma(0.7, (num, taste.interests)) + 1e-3
        order = np.argsort(-weights, axis=1, kind="stable")
        self.user_weight_UN = np.take_along_axis(weights, order, axis=1).astype("f4")
        self.user_wane_days = rng.uniform(*taste.wane_days, (num, taste.interests)).astype("f4")
        self.user_phase = rng.random((num, taste.interests), "f4")
        shortest, longest = (math.log(hours) for hours in taste.mood_hours)
        self.user_mood_h = np.exp(rng.uniform(shortest, longest, num))
        self.user_fad_days = rng.uniform(*taste.fad_days, num)
        self.user_offset = rng.random((num, 2))  # where its moods and fads begin
        self.user_fad_share = np.clip(rng.normal(taste.fad_share, 0.1, num), 0.0, 1.0)
        self.user_own_UD = directions(rng, (num, taste.dim)) * np.float32(taste.personal)
        share = self.user_weight_UN / self.user_weight_UN.sum(axis=1, keepdims=True)
        lasting = np.einsum("un,und->ud", share, self.topics_KD[self.user_topics])
        self.user_lasting_UD = unit(lasting + self.user_own_UD)
        second = self.topics_KD[rng.integers(0, taste.topics, (num, 2))].sum(axis=1)
        own = unit(second + directions(rng, (num, taste.dim)))
        shared = self.user_lasting_UD if taste.shared else unit(self.user_lasting_UD + own)
        self.user_buying_UD = shared
        self.user_style_US = directions(rng, (num, taste.style_dim))
        self.user_bias = rng.normal(0.0, config.click.user, num).astype("f4")
        self.user_visits = rng.gamma(
            config.activity_shape, config.visits / config.activity_shape, num
        )
        self.user_country = rng.choice(20, num, p=zipf_shares(20, 1.2))
        self.user_age = rng.choice(6, num, p=[0.2, 0.3, 0.2, 0.14, 0.1, 0.06])
        self.user_gender = rng.choice(3, num, p=[0.65, 0.25, 0.1])
        self.user_device = rng.choice(4, num, p=[0.45, 0.35, 0.15, 0.05])

    def _draw_pins(self) -> None:
        config, taste = self.config, self.config.taste
        rng, num = generator(self.seed, Stream.MARKET_PINS), len(self.pins.born)
        self.pin_is_ad = np.arange(num) >= num - self._num_ads
        topics = rng.integers(0, taste.topics, (num, _ACTIVE_TOPICS))
        weights = rng.standard_gamma(0.1, topics.shape) + 1e-12
        order = np.argsort(-weights, axis=1, kind="stable")
        topics = np.take_along_axis(topics, order, axis=1)
        weights = np.take_along_axis(weights, order, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        mixture = np.einsum("pn,pnd->pd", weights.astype("f4"), self.topics_KD[topics])
        self.pin_topic = topics[:, 0]
        self.pin_PD = unit(unit(mixture) + directions(rng, mixture.shape) * taste.pin_noise)
        self.pin_weight = (rng.permutation(num) + 1.0) ** -config.zipf
        log_weight = np.log(self.pin_weight)
        standard = (log_weight - log_weight.mean()) / log_weight.std()
        self.pin_popularity = np.clip(standard, -3.0, 3.0).astype("f4")
        self.pin_style_PS = directions(rng, (num, taste.style_dim))
        self.pin_bias = rng.normal(0.0, config.click.pin, num).astype("f4")
        self.pin_creative = rng.choice(4, num, p=[0.5, 0.2, 0.2, 0.1])
        self.pin_price = np.exp(rng.normal(3.5, 1.0, num)).astype("f4")
        owner = rng.choice(config.advertisers, num, p=zipf_shares(config.advertisers, 0.7))
        self.pin_advertiser = np.where(self.pin_is_ad, owner, -1)
        item = owner * config.items + rng.integers(0, config.items, num)
        self.pin_item = np.where(self.pin_is_ad, item, -1)
        self._draw_campaigns(rng, num)

    @property
    def _num_ads(self) -> int:
        arrivals = round(self.config.ads * self.config.churn)
        return self.config.ads + arrivals * (self.config.days - 1)

    def _draw_campaigns(self, rng: np.random.Generator, num: int) -> None:
        """What each ad is bid for: USD per click, or per conversion."""
        self.pin_objective = rng.choice(len(OBJECTIVES), num, p=[0.6, 0.4])
        worth = np.exp(rng.normal(0.0, 0.5, num))
        self.pin_bid = (np.where(self.pin_objective == 0, 0.5, 10.0) * worth).astype("f4")
        self.pin_bid[~self.pin_is_ad] = 0.0

    def _draw_advertisers(self) -> None:
        config, rng = self.config, generator(self.seed, Stream.MARKET_ADVERTISERS)
        num = config.advertisers
        self.advertiser_quality = rng.normal(0.0, 0.5, num).astype("f4")
        self.advertiser_noisy = rng.random(num) < config.conversion.noisy_advertisers
        mix = rng.dirichlet(np.full(len(CONVERSION_TYPES), 0.5), num)
        self.advertiser_types = np.cumsum(mix, axis=1)
        rules = config.auction
        slots = config.users * config.visits * config.pages * len(rules.slots)
        usual = slots * 0.03 * 0.3  # what all slots earn in a day: clicks at 0.30 USD
        share = zipf_shares(num, 0.7) * np.exp(rng.normal(-0.5, 1.0, num))
        self.advertiser_budget = (rules.budget * usual * share).astype("f4")
        # An advertiser sells things of a few topics.
        sells = rng.integers(0, config.taste.topics, (num, 2))
        chosen = rng.integers(0, 2, (num, config.items))
        self.item_topic = np.take_along_axis(sells, chosen, axis=1).reshape(-1)
        self.item_weight = np.exp(rng.normal(0.0, 1.0, num * config.items))

    def _draw_trees(self) -> None:
        """Random trees of depth 6: the bits they look at, and their leaves [T, 8, 8]."""
        taste, rng = self.config.taste, generator(self.seed, Stream.MARKET_TREES)
        wide = taste.trees * _BITS
        views = [rng.standard_normal((taste.dim, wide), "f4") for _ in range(4)]
        styles = [rng.standard_normal((taste.style_dim, wide), "f4") for _ in range(2)]
        self.tree_pin_PT = _codes(self.pin_PD @ views[0] + self.pin_style_PS @ styles[0])
        self.tree_lasting_UT = _codes(self.user_lasting_UD @ views[1])
        buying = self.user_buying_UD @ views[1 if taste.shared else 2]
        self.tree_buying_UT = _codes(buying)
        own = self.user_own_UD @ views[3] + self.user_style_US @ styles[1]
        self.tree_own_UT = _codes(own)
        self.tree_topic_KT = _codes(self.topics_KD @ views[3])
        leaves = rng.standard_normal((3, taste.trees, 1 << _BITS, 1 << _BITS), "f4")
        leaves -= leaves.mean(axis=(2, 3), keepdims=True)
        # About as wide as the cosine of two random vectors is.
        self.tree_leaves = leaves * np.float32(0.35 / np.sqrt(taste.trees))
        if taste.shared:
            self.tree_leaves[2] = self.tree_leaves[1]

    @cached_property
    def content(self) -> Floats:
        """What anyone can see of a Pin: a noisy random view [P, C] of its hidden vector."""
        config, rng = self.config, generator(self.seed, Stream.CONTENT)
        view = rng.standard_normal((config.taste.dim, config.content_dim), "f4")
        view /= np.float32(np.sqrt(config.content_dim))
        noise = directions(rng, (len(self.pin_PD), config.content_dim))
        return unit(self.pin_PD @ view + noise * np.float32(config.taste.content_noise))


def _one_after_the_other(first: Spans, second: Spans) -> Spans:
    return Spans(
        np.concatenate([first.born, second.born]), np.concatenate([first.gone, second.gone])
    )


def _codes(views: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The signs of views [N, T * 3] as one code of 3 bits for each tree [N, T]."""
    bits = (views > 0).reshape(len(views), -1, _BITS)
    codes: npt.NDArray[np.uint8] = (bits << np.arange(_BITS)).sum(axis=2).astype(np.uint8)
    return codes
