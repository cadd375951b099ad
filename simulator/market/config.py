"""How large a market is and how it behaves. Equal values and seeds give equal worlds.

The constants were chosen before any model had seen such a world, and stay as they are
(docs/adr/0021-markets-beside-the-world.md): what models find on them are findings.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from simulator.config import WorldConfig

SURFACES = ("HF", "RP", "SR")  # home feed, related Pins, search
ACTIONS = ("impression", "hide", "closeup", "reaction", "comment", "save", "click")  # weakest first
CONVERSION_TYPES = ("checkout", "add_to_cart", "signup", "lead")
OFFSITE_TYPES = (*CONVERSION_TYPES, "page_visit")
ATTRIBUTIONS = ("click", "view", "none")
OBJECTIVES = ("clicks", "conversions")

BySurface = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketTaste:
    """What users are like, and how long each part of it lasts.

    Attributes:
        fit: what decides how a Pin suits a user: products of hidden vectors, or the leaves of
            random trees over hidden bits of both.
        shared: clicks and conversions follow one taste.
        dim, style_dim: widths of hidden vectors; of a Pin's style its content shows nothing.
        interests: lasting ones of a user; they wax and wane over `wane_days`.
        fad_share: how often a mood follows a fad, an interest that is over after `fad_days`.
        mood_hours: shortest and longest time that a user stays in one mood.
        personal: how far a user's view of a topic is from everybody's.
        pin_noise: how far a Pin is from its topics; `content_noise`: its content from it.
        trees: how many there are, where they decide.
    """

    fit: Literal["vectors", "trees"] = "vectors"
    shared: bool = False
    dim: int = 32
    style_dim: int = 8
    topics: int = 64
    interests: int = 4
    wane_days: tuple[float, float] = (60.0, 180.0)
    fad_share: float = 0.3
    fad_days: tuple[float, float] = (3.0, 14.0)
    mood_hours: tuple[float, float] = (6.0, 72.0)
    personal: float = 0.5
    pin_noise: float = 0.7
    content_noise: float = 0.5
    trees: int = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketClicks:
    """Log-odds of what follows an impression; tuples are by surface (HF, RP, SR).

    Attributes:
        ad: what being an ad adds.
        style, user, pin, advertiser: standard deviations of what no content explains: the fit of
            two styles, a user's and a Pin's own tendency, and a user's liking of an advertiser.
        day_shock: standard deviation of a day's common shift of a surface.
    """

    bias: BySurface = (-5.6, -4.8, -4.0)
    ad: BySurface = (-0.5, -0.3, 0.2)
    present: BySurface = (3.0, 2.0, 1.0)
    lasting: BySurface = (1.0, 0.5, 0.2)
    query: BySurface = (0.0, 1.5, 2.5)
    position: BySurface = (-0.15, -0.25, -0.5)
    popularity: float = 0.2
    style: float = 0.5
    user: float = 0.4
    pin: float = 0.4
    advertiser: float = 0.4
    day_shock: float = 0.1
    good_bias: float = -1.0
    good_taste: float = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionConfig:
    """Log-odds of an action other than a click, by surface, and what its fit adds."""

    bias: BySurface
    present: float = 2.0
    lasting: float = 0.0


_OTHERS = (
    ("hide", ActionConfig(bias=(-4.8, -5.5, -6.0), present=-2.0)),
    ("closeup", ActionConfig(bias=(-3.5, -2.9, -3.1), present=2.0)),
    ("reaction", ActionConfig(bias=(-5.6, -5.9, -6.5), present=1.5, lasting=1.0)),
    ("comment", ActionConfig(bias=(-7.4, -7.4, -8.0), present=1.0, lasting=1.5)),
    ("save", ActionConfig(bias=(-4.4, -4.1, -4.4), present=1.0, lasting=2.0)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketConversions:
    """What happens on the pages of advertisers, and what the ads are said to have done.

    Attributes:
        bias, buying, quality, style: log-odds that a click on an ad converts.
        view_share: odds after a mere view, relative to those after a click.
        visit: chance that a click arrives at the page.
        delay_mean_days, delay_sigma: of the log-normal delay of a conversion.
        click_days, view_days: attribution windows.
        noisy_advertisers: share of advertisers whose reports are random, at `noisy_rate`.
        visits: pages of items that a user sees in a day without any ad, on average.
        visit_converts: share of those visits that convert, by type; attributed to nothing.
    """

    bias: float = -3.8
    buying: float = 2.5
    quality: float = 0.5
    style: float = 0.5
    view_share: float = 0.05
    visit: float = 0.8
    delay_mean_days: float = 1.5
    delay_sigma: float = 1.2
    click_days: int = 30
    view_days: int = 1
    noisy_advertisers: float = 0.05
    noisy_rate: float = 0.05
    visits: float = 1.0
    visit_converts: float = 0.08


@dataclass(frozen=True, kw_only=True, slots=True)
class AuctionConfig:
    """How ads get their slots.

    Attributes:
        candidates: ads that a request may show; some are drawn twice and count once.
        slots: places of a page that hold ads, from 0.
        relevant: share of the candidates that are drawn from the topic of the request.
        reserve: lowest price of a thousand impressions, USD.
        budget: of all advertisers together, in multiples of what the slots usually earn.
        periods: parts of a day after each of which advertisers adjust their pace.
        noise: standard deviation, in log-odds, of the logging policy's error about an ad.
    """

    candidates: int = 32
    slots: tuple[int, ...] = (2, 7)
    relevant: float = 0.6
    reserve: float = 1.0
    budget: float = 1.5
    periods: int = 48
    noise: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class MarketConfig:
    """One market.

    Attributes:
        users, pins, ads: how many exist on a day; `churn` of each is replaced daily. Pins are
            organic, ads are Pins too.
        items: offsite items of an advertiser.
        visits: of a user in a day, on average; users differ by a Gamma distribution.
        pages: of a visit, on average; each is a request of `page` slots.
        surfaces: shares of the requests.
        explore: share of organic Pins that are shown for their popularity alone.
        history_days: how far back the sequences of users look; `context_days`: counts in rows.
        sequence_len: longest engagement sequence kept.
        block_users: users drawn at a time, which bounds memory.
    """

    users: int
    pins: int
    ads: int
    advertisers: int
    content_dim: int
    items: int = 8
    days: int = 240
    churn: float = 0.003
    visits: float = 2.0
    pages: float = 2.0
    page: int = 10
    surfaces: BySurface = (0.55, 0.25, 0.2)
    activity_shape: float = 2.0
    zipf: float = 0.9
    explore: float = 0.3
    history_days: int = 90
    context_days: int = 30
    sequence_len: int = 256
    block_users: int = 20_000
    taste: MarketTaste = MarketTaste()
    click: MarketClicks = MarketClicks()
    others: tuple[tuple[str, ActionConfig], ...] = _OTHERS
    conversion: MarketConversions = MarketConversions()
    auction: AuctionConfig = AuctionConfig()

    def __post_init__(self) -> None:
        positive = ("users", "pins", "ads", "advertisers", "items", "days", "history_days")
        for name in (*positive, "context_days", "block_users", "sequence_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if self.content_dim < self.taste.dim:
            raise ValueError(
                f"content_dim: expected >= taste.dim = {self.taste.dim}, found {self.content_dim}"
            )
        if max(self.auction.slots) >= self.page:
            raise ValueError(
                f"auction.slots: expected places below page = {self.page},"
                f" found {self.auction.slots}"
            )
        window = self.conversion.click_days + self.context_days
        if window > self.history_days:
            raise ValueError(
                f"history_days: expected >= conversion.click_days + context_days = {window},"
                f" found {self.history_days}"
            )

    @property
    def impressions_per_user(self) -> float:
        """Impressions of a user on a day, on average."""
        return self.visits * self.pages * self.page


# Whatever a simulated data set is made from.
Simulation = WorldConfig | MarketConfig


def toy() -> MarketConfig:
    """About 20k events a day: seconds on one core."""
    return MarketConfig(users=500, pins=2_000, ads=400, advertisers=40, content_dim=64)


def small() -> MarketConfig:
    """About 800k events a day."""
    return MarketConfig(users=20_000, pins=40_000, ads=10_000, advertisers=1_000, content_dim=256)


def large() -> MarketConfig:
    """About 10M events a day."""
    return MarketConfig(users=250_000, pins=300_000, ads=60_000, advertisers=6_000, content_dim=256)


def _trees(config: MarketConfig) -> MarketConfig:
    return replace(config, taste=replace(config.taste, fit="trees"))


def _one_taste(config: MarketConfig) -> MarketConfig:
    return replace(config, taste=replace(config.taste, shared=True))


# Markets by the name of their data set: what differs from the one that a recipe sizes.
MARKETS: dict[str, Callable[[MarketConfig], MarketConfig]] = {
    "market": lambda config: config,
    "market_trees": _trees,
    "market_one_taste": _one_taste,
}
# The data sets that are simulated: the first world, and the markets.
SIMULATED = "simulated"
WORLDS = (SIMULATED, *MARKETS)
