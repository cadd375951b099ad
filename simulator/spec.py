"""The simulated world as a data set: what its tables hold.

Late labels. An impression is labelled with what is known when its day ends. A conversion that
arrives on the same day sets the labels of the impression's row. One that arrives later, within its
attribution window, becomes a row of its own in `events` of the day it arrives on: action
`conversion`, the time, user, Pin, surface and context of the impression, its conversion labels 1
and every other label null. The impression's row keeps its 0: it is a fake negative.

Training on both is the fake-negative scheme of Ktena et al. (2019, "Addressing delayed feedback for
continuous training with neural networks in CTR prediction"). It biases calibration: if a share
p_late of impressions converts late, there are 1 + p_late rows per impression, and a model of true
rate p predicts p / (1 + p_late); where all conversions are late, p / (1 + p).
"""

from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from simulator.config import ATTRIBUTIONS, CONVERSION_TYPES, SURFACES, WorldConfig
from simulator.outcomes import ACTIONS

CLICK = "the impression was clicked"


def typed_label(conversion: str, attribution: str) -> str:
    """The label column of one type of conversion."""
    return f"{conversion}_after_{attribution}"


def world_spec(config: WorldConfig) -> DatasetSpec:
    """The declaration of a world of this size."""
    rows = config.users * config.impressions_per_user
    return DatasetSpec(
        name="simulated",
        description="ad impressions of a synthetic world whose probabilities are known",
        surfaces=SURFACES,
        actions=(*ACTIONS, "conversion"),
        labels=label_declarations(),
        features=(*_user_features(config), *_pin_features(config), *_context_features()),
        attribution_days=config.conversion.click_days,
        daily_rows=(int(rows * 0.4), int(rows * 2.5)),
        label_rates={"click": (0.002, 0.15), "conversion": (0.0005, 0.05)},
        freshness_hours=3,
    )


def label_declarations() -> tuple[Label, ...]:
    """What follows an impression of an ad, in every simulated world."""
    typed = (
        Label(
            name=typed_label(kind, attribution),
            upstream="cvr",
            role="task",
            meaning=f"a {kind} attributed to the {attribution}",
        )
        for kind in CONVERSION_TYPES
        for attribution in ATTRIBUTIONS
    )
    return (
        Label(name="click", upstream="ctr", role="primary", meaning=CLICK),
        Label(
            name="good_click",
            upstream="ctr",
            role="task",
            meaning="it was clicked, and the visit lasted more than 30 s",
        ),
        Label(
            name="conversion",
            upstream="cvr",
            role="primary",
            meaning="any conversion is attributed to the impression",
        ),
        *typed,
        Label(name="click", upstream="cvr", role="auxiliary", meaning=CLICK),
    )


def numeric(scope: str, meanings: dict[str, str]) -> tuple[Feature, ...]:
    """Numeric features of one scope, by name."""
    return tuple(
        Feature(name=name, scope=scope, kind="numeric", meaning=meaning)  # type: ignore[arg-type]
        for name, meaning in meanings.items()
    )


def categorical(scope: str, meanings: dict[str, tuple[str, int]]) -> tuple[Feature, ...]:
    """Categorical features of one scope, by name: meaning and cardinality."""
    return tuple(
        Feature(
            name=name,
            scope=scope,  # type: ignore[arg-type]
            kind="categorical",
            meaning=meaning,
            cardinality=cardinality,
        )
        for name, (meaning, cardinality) in meanings.items()
    )


def sequence(name: str, meaning: str, cardinality: int, length: int) -> Feature:
    """A sequence of users, newest first, of at most so many entries."""
    return Feature(
        name=name,
        scope="user",
        kind="sequence",
        meaning=meaning,
        cardinality=cardinality,
        max_len=length,
        ids_of="pin" if name == "engaged_pins" else None,
    )


def account_features(topics: int) -> tuple[Feature, ...]:
    """What every simulated world knows of an account."""
    return (
        *categorical(
            "user",
            {
                "country": ("country of the account", 32),
                "age_bucket": ("age group", 8),
                "gender": ("gender as declared", 8),
                "device": ("device used most", 8),
            },
        ),
        Feature(
            name="interests",
            scope="user",
            kind="list",
            meaning="interests chosen at sign-up",
            cardinality=2 * topics,
            max_len=3,
        ),
        *numeric(
            "user",
            {
                "tenure_days": "days since sign-up",
                "user_saves_30d": "saves in the 30 days before the day",
            },
        ),
    )


def engaged_sequences(pins: int, *, days: int, length: int) -> tuple[Feature, ...]:
    """What a user acted on: Pins of a cardinality, and beside each what was done, and where."""
    acted = f"Pins acted on in the {days} days before the day"
    return (
        sequence("engaged_pins", acted, pins, length),
        sequence("engaged_actions", "what was done with each of engaged_pins", 16, length),
        sequence("engaged_surfaces", "where each of engaged_pins was shown", 8, length),
    )


def content_feature(dim: int) -> Feature:
    """The content vector of a Pin."""
    meaning = "content embedding, unit length"
    return Feature(name="content", scope="pin", kind="embedding", meaning=meaning, dim=dim)


def _user_features(config: WorldConfig) -> tuple[Feature, ...]:
    length = config.sequence_len
    return (
        *account_features(config.taste.topics),
        *engaged_sequences(2 * config.pins, days=30, length=length),
        sequence(
            "converted_advertisers",
            "advertisers of conversions heard of in the 30 days before the day",
            2 * config.advertisers,
            length,
        ),
    )


def _pin_features(config: WorldConfig) -> tuple[Feature, ...]:
    return (
        content_feature(config.content_dim),
        *categorical(
            "pin",
            {
                "primary_interest": ("main topic", 2 * config.taste.topics),
                "advertiser": ("who pays for it", 2 * config.advertisers),
                "creative_type": ("image, video, carousel or collection", 8),
                "price_bucket": ("price group", 16),
            },
        ),
        *numeric(
            "pin",
            {
                "price": "price of the product, USD",
                "pin_age_days": "days since it was created",
                "pin_saves_30d": "saves in the 30 days before the day",
            },
        ),
    )


def _context_features() -> tuple[Feature, ...]:
    return (
        *categorical(
            "context",
            {
                "hour": ("hour of the impression, UTC", 32),
                "query_topic": ("topic searched or related to; null on the home feed", 128),
            },
        ),
        *numeric(
            "context",
            {
                "position": "place within the session, from 0",
                "user_advertiser_engagements": "user's actions on the advertiser's Pins, 30 days",
                "user_interest_engagements": "user's actions on Pins of that interest, 30 days",
                "affinity": "cosine of the Pin's content and that of the user's engaged Pins",
            },
        ),
    )
