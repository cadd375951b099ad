"""A market as a data set: what its tables hold.

Organic Pins and ads are shown together. Clicks are labels of both; conversions of ads alone, and
null for organic Pins. Late labels are as in `simulator.spec`.
"""

from feature_store.contracts.datasets import DatasetSpec, Feature
from feature_store.contracts.tables import Column, Dtype, Table
from simulator.market.config import (
    ACTIONS,
    ATTRIBUTIONS,
    OBJECTIVES,
    OFFSITE_TYPES,
    SURFACES,
    MarketConfig,
)
from simulator.spec import (
    account_features,
    categorical,
    content_feature,
    engaged_sequences,
    label_declarations,
    numeric,
    sequence,
)


def market_spec(name: str, config: MarketConfig) -> DatasetSpec:
    """The declaration of a market of this size."""
    rows = config.users * config.impressions_per_user
    return DatasetSpec(
        name=name,
        description="organic and paid impressions of a synthetic market whose chances are known",
        surfaces=SURFACES,
        surface_features={
            "HF": ("feed_page",),
            "RP": ("related_topic", "related_match"),
            "SR": ("query_topic", "query_match"),
        },
        actions=(*ACTIONS, "conversion"),
        labels=label_declarations(),
        features=(*_user_features(config), *_pin_features(config), *_context_features(config)),
        columns=(
            _column("request_id", "the page that showed it", is_id=True),
            _column("is_ad", "whether somebody pays for it", "bool"),
        ),
        tables=(_offsite(), _requests(config), _campaigns()),
        attribution_days=config.conversion.click_days,
        daily_rows=(int(rows * 0.4), int(rows * 2.5)),
        label_rates={"click": (0.01, 0.3), "conversion": (0.0005, 0.05)},
        freshness_hours=3,
    )


def _user_features(config: MarketConfig) -> tuple[Feature, ...]:
    days, length = config.history_days, config.sequence_len
    return (
        *account_features(config.taste.topics),
        *engaged_sequences(2 * (config.pins + config.ads), days=days, length=length),
        sequence(
            "converted_advertisers",
            f"advertisers of conversions heard of in the {config.conversion.click_days} days "
            "before the day",
            2 * config.advertisers,
            50,
        ),
        sequence(
            "visited_items",
            "offsite items visited or bought without an ad, before the day",
            2 * config.advertisers * config.items,
            50,
        ),
    )


def _pin_features(config: MarketConfig) -> tuple[Feature, ...]:
    return (
        content_feature(config.content_dim),
        *categorical(
            "pin",
            {
                "promoted": ("ad or organic", 4),
                "primary_interest": ("main topic", 2 * config.taste.topics),
                "advertiser": ("who pays for it; null for organic Pins", 2 * config.advertisers),
                "creative_type": ("image, video, carousel or collection", 8),
                "price_bucket": ("price group; null for organic Pins", 16),
            },
        ),
        *numeric(
            "pin",
            {
                "price": "price of the product, USD; null for organic Pins",
                "pin_age_days": "days since it was created",
                "pin_saves_30d": "saves in the 30 days before the day",
            },
        ),
    )


def _context_features(config: MarketConfig) -> tuple[Feature, ...]:
    topics, days = 2 * config.taste.topics, config.context_days
    return (
        *categorical(
            "context",
            {
                "hour": ("hour of the impression, UTC", 32),
                "query_topic": ("topic searched; on search only", topics),
                "related_topic": ("topic of the Pin it is related to; on related Pins", topics),
            },
        ),
        *numeric(
            "context",
            {
                "position": "place within the visit, from 0",
                "feed_page": "pages of the visit before this one; on the home feed only",
                "query_match": "cosine of the content and the topic searched; on search only",
                "related_match": "cosine with the Pin it is related to; on related Pins only",
                "user_advertiser_engagements": f"user's actions on the advertiser's ads, {days} "
                "days; null for organic Pins",
                "user_interest_engagements": f"user's actions on Pins of that interest, {days} "
                "days",
            },
        ),
    )


def _column(
    name: str,
    meaning: str,
    dtype: Dtype = "string",
    *,
    values: tuple[str, ...] | None = None,
    nullable: bool = False,
    is_id: bool = False,
) -> Column:
    least = 0 if dtype in ("float32", "int32") else None
    return Column(
        name=name,
        dtype=dtype,
        meaning=meaning,
        values=values,
        nullable=nullable,
        is_id=is_id,
        minimum=least,
    )


def _offsite() -> Table:
    return Table(
        name="offsite",
        grain="one action of a user on a page of an advertiser, heard of on the day",
        key=("offsite_id",),
        columns=(
            _column("offsite_id", "unique in the day", is_id=True),
            _column("ts", "time of the action, UTC", "timestamp"),
            _column("user_id", "who did it", is_id=True),
            _column("advertiser_id", "whose page it was", is_id=True),
            _column("item_id", "what the page sells", is_id=True),
            _column("kind", "what was done", values=OFFSITE_TYPES),
            _column("attribution", "what it is attributed to", values=ATTRIBUTIONS),
            _column(
                "impression_id",
                "event_id of the impression it is attributed to",
                nullable=True,
                is_id=True,
            ),
        ),
    )


def _requests(config: MarketConfig) -> Table:
    return Table(
        name="requests",
        grain="one page that a user asked for",
        key=("request_id",),
        columns=(
            _column("request_id", "unique in the day", is_id=True),
            _column("ts", "time of the request, UTC", "timestamp"),
            _column("user_id", "who asked", is_id=True),
            _column("surface", "where", values=SURFACES),
            _column("query_topic", "topic searched; on search only", nullable=True),
            _column("related_topic", "topic of the Pin others relate to", nullable=True),
            _column("page", "pages of the visit before it", "int32"),
            _column(
                "pin_ids",
                f"ads that may be shown, at most {config.auction.candidates}",
                "list<string>",
                is_id=True,
            ),
        ),
    )


def _campaigns() -> Table:
    return Table(
        name="campaigns",
        grain="one ad that exists on the day, and what is bid for it",
        key=("pin_id",),
        columns=(
            _column("pin_id", "the ad", is_id=True),
            _column("advertiser_id", "who pays", is_id=True),
            _column("item_id", "what it promotes", is_id=True),
            _column("objective", "what is bid for", values=OBJECTIVES),
            _column("bid", "USD, for a click or for a conversion", "float32"),
            _column("daily_budget", "USD, of all ads of the advertiser together", "float32"),
        ),
    )
