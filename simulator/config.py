"""How large the world is and how it behaves. Equal values and seeds give equal worlds."""

from dataclasses import dataclass

SURFACES = ("HF", "RP", "SR")  # home feed, related Pins, search
CONVERSION_TYPES = ("checkout", "add_to_cart", "signup", "lead")
ATTRIBUTIONS = ("click", "view")


@dataclass(frozen=True, kw_only=True, slots=True)
class TasteConfig:
    """Vectors behind the behaviour.

    Attributes:
        dim: width of topic, taste and Pin vectors.
        drift: length of a user's daily step in taste space.
        session_pull: how far a session leaves the long-term taste; half of it is gone after
            `session_half_life_h` hours.
    """

    dim: int = 32
    topics: int = 64
    drift: float = 0.05
    session_pull: float = 0.8
    session_half_life_h: float = 2.0
    pin_noise: float = 0.3
    content_noise: float = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class ClickConfig:
    """Log-odds of what follows an impression; tuples are by surface (HF, RP, SR).

    Attributes:
        day_shock: standard deviation of a day's common shift of a surface's log-odds.
    """

    bias: tuple[float, float, float]
    taste: tuple[float, float, float] = (3.0, 2.5, 2.0)
    query: tuple[float, float, float] = (0.0, 1.0, 1.5)
    popularity: float = 0.3
    position: float = -0.2
    day_shock: float = 0.1
    good_bias: float = -1.0
    good_taste: float = 1.5
    save_bias: float = -5.0
    closeup_bias: float = -4.0
    hide_bias: float = -5.5
    other_taste: float = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionConfig:
    """Offsite conversions: their odds, their delay, and how they are attributed.

    Attributes:
        view_share: odds after a mere view, relative to those after a click.
        delay_mean_days, delay_sigma: of the log-normal delay.
        delayed: share of the conversions that are heard of after their delay; the others are heard
            of at once. What converts does not depend on it: 0 is the same world without late
            labels.
        click_days, view_days: attribution windows.
        noisy_advertisers: share of advertisers whose reports are random.
    """

    bias: float = -4.0
    taste: float = 3.0
    quality: float = 0.5
    view_share: float = 0.1
    delay_mean_days: float = 1.5
    delay_sigma: float = 1.2
    delayed: float = 1.0
    click_days: int = 30
    view_days: int = 1
    noisy_advertisers: float = 0.05
    noisy_rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.delayed <= 1:
            raise ValueError(f"conversion.delayed: expected 0 to 1, found {self.delayed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    """One world.

    Attributes:
        users, pins: how many exist on a day; `churn` of them is replaced daily.
        days: how many days the world lasts.
        impressions_per_user: mean per day; users differ by a Gamma distribution.
        impressions_per_session: mean.
        zipf: exponent of Pin popularity.
        explore: share of impressions chosen by popularity alone, not by the session's topic.
        history_days: how far back features look.
        sequence_len: longest engagement sequence kept.
        block_users: users simulated at a time, which bounds memory.
    """

    users: int
    pins: int
    advertisers: int
    content_dim: int
    click: ClickConfig
    days: int = 120
    churn: float = 0.02
    impressions_per_user: float = 4.0
    impressions_per_session: float = 5.0
    activity_shape: float = 0.8
    zipf: float = 1.05
    explore: float = 0.3
    history_days: int = 30
    sequence_len: int = 50
    block_users: int = 50_000
    taste: TasteConfig = TasteConfig()
    conversion: ConversionConfig = ConversionConfig()

    def __post_init__(self) -> None:
        for name in ("users", "pins", "advertisers", "days", "history_days", "block_users"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if self.impressions_per_session < 1:
            raise ValueError(
                f"impressions_per_session: expected >= 1, found {self.impressions_per_session}"
            )
        if self.content_dim < self.taste.dim:
            raise ValueError(
                f"content_dim: expected >= taste.dim = {self.taste.dim}, found {self.content_dim}"
            )
        if self.conversion.click_days > self.history_days:
            raise ValueError(
                f"conversion.click_days: expected <= history_days = {self.history_days},"
                f" found {self.conversion.click_days}"
            )


def toy() -> WorldConfig:
    """About 8k events a day: seconds on one core."""
    return WorldConfig(
        users=2_000,
        pins=1_000,
        advertisers=50,
        content_dim=64,
        click=ClickConfig(bias=(-5.2, -5.6, -5.6)),
    )


def small() -> WorldConfig:
    """About 550k events a day."""
    return WorldConfig(
        users=100_000,
        pins=50_000,
        advertisers=2_000,
        content_dim=256,
        impressions_per_user=5.5,
        click=ClickConfig(bias=(-6.6, -7.0, -7.0)),
    )


def large() -> WorldConfig:
    """About 11M events a day."""
    return WorldConfig(
        users=2_000_000,
        pins=500_000,
        advertisers=20_000,
        content_dim=256,
        impressions_per_user=5.5,
        click=ClickConfig(bias=(-6.6, -7.0, -7.0)),
    )
