"""Markets: base rates, hidden probabilities, moods, what content hides, pages of advertisers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from simulator.market import config as markets
from simulator.market.behaviour import MarketDay, simulate_market
from simulator.market.chances import fits_of
from simulator.market.config import MARKETS, SURFACES
from simulator.market.exposures import Exposures
from simulator.market.luck import uniform
from simulator.market.moods import interest_weights, topics_at
from simulator.market.population import MarketPopulation
from tests.market_fixtures import DAYS, market_days, population


@pytest.fixture(scope="module")
def toy_days() -> list[MarketDay]:
    world = MarketPopulation(markets.toy(), 0)
    return [simulate_market(world, day) for day in range(4)]


def test_toy_rates_are_those_of_the_documentation(toy_days: list[MarketDay]) -> None:
    world = MarketPopulation(markets.toy(), 0)
    for day in toy_days:
        assert 25 < len(day.log.ts) / 500 < 55
    ads = [day.log.take(world.pin_is_ad[day.log.pin]) for day in toy_days]
    rate = [np.mean(np.concatenate([x.click[x.surface == s] for x in ads])) for s in range(3)]
    assert 0.01 < rate[0] < 0.03
    assert rate[1] > 1.4 * rate[0]
    assert rate[2] > 1.4 * rate[1]
    clicked = np.concatenate([x.conversion[x.click] >= 0 for x in ads])
    assert 0.02 < clicked.mean() < 0.1
    # Sequences of 256 within the 90 days that they look back.
    acted = sum((day.log.action > 0).sum() for day in toy_days) / len(toy_days) / 500
    assert 90 * acted > 1.5 * 256


@pytest.mark.parametrize("name", MARKETS)
def test_markets_click_and_buy_about_alike(name: str) -> None:
    world = MarketPopulation(MARKETS[name](markets.toy()), 1)
    log = simulate_market(world, 3).log
    ads = log.take(world.pin_is_ad[log.pin])
    rates = [ads.p_click[ads.surface == surface].mean() for surface in range(3)]
    assert 0.015 < rates[0] < 0.03
    assert rates[2] > 1.3 * rates[1] > 1.3 * 1.3 * rates[0]
    assert 0.003 < ads.p_conversion.mean() < 0.006


def test_outcomes_follow_the_truth(toy_days: list[MarketDay]) -> None:
    for outcome, chance in (("click", "p_click"), ("good_click", "p_good_click")):
        for surface in range(len(SURFACES)):
            rows = [day.log.take(day.log.surface == surface) for day in toy_days]
            drawn = np.concatenate([getattr(x, outcome) for x in rows])
            p = np.concatenate([getattr(x, chance) for x in rows]).astype(float)
            assert abs(drawn.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
    sold = sum((day.log.conversion >= 0).sum() for day in toy_days)
    p = np.concatenate([day.log.p_conversion for day in toy_days]).astype(float)
    assert abs(sold - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_few_come_and_go() -> None:
    for shape in MARKETS.values():
        assert shape(markets.toy()).churn <= 0.003


def test_a_mood_lasts_hours_to_days() -> None:
    world = population()
    users = np.repeat(np.arange(300), 24 * 28)
    hours = np.tile(np.arange(24.0 * 28), 300)
    topic, fad = topics_at(world, users, hours)
    topic = topic.reshape(300, -1)
    changes = (topic[:, 1:] != topic[:, :-1]).mean(axis=1)
    assert 6 < 1 / changes.mean() < 72
    kinds = np.array([len(np.unique(row)) for row in topic])
    assert np.median(kinds) >= 3  # several interests within four weeks
    assert 0.2 < fad.mean() < 0.4
    asked_alone, _ = topics_at(world, users[500:501], hours[500:501])
    assert asked_alone[0] == topic.reshape(-1)[500]


def test_interests_wax_and_wane() -> None:
    world, users = population(), np.arange(200)
    weights = [interest_weights(world, users, np.full(200, day)) for day in (0.0, 1.0, 45.0)]
    share = [w / w.sum(axis=1, keepdims=True) for w in weights]
    assert np.abs(share[1] - share[0]).mean() < 0.03
    assert np.abs(share[2] - share[0]).mean() > 0.05


def test_content_does_not_explain_a_pin() -> None:
    world = population()
    content = np.c_[world.content, np.ones(len(world.content))]
    for hidden, least, most in (
        (world.pin_PD, 0.4, 0.9),
        (world.pin_style_PS, -1.0, 0.1),
        (world.pin_bias[:, None], -1.0, 0.1),
    ):
        fitted = content @ np.linalg.lstsq(content, hidden, rcond=None)[0]
        explained = 1 - np.var(hidden - fitted) / np.var(hidden)
        assert least < explained < most


def _exposures(world: MarketPopulation, num: int) -> Exposures:
    rng = np.random.default_rng(0)
    nothing = np.full(num, -1)
    return Exposures(
        day=0,
        request=np.arange(num),
        slot=np.zeros(num, np.int64),
        user=rng.integers(0, len(world.users.born), num),
        pin=rng.integers(0, len(world.pins.born), num),
        surface=np.zeros(num, np.int8),
        topic=rng.integers(0, world.config.taste.topics, num),
        query=nothing,
        source=nothing,
        position=np.zeros(num, np.int64),
    )


def test_trees_compare_no_vectors() -> None:
    world = MarketPopulation(population("market_trees").config, 3)
    shown = _exposures(world, 2000)
    before = fits_of(world, shown)
    for name in ("pin_PD", "user_lasting_UD", "user_buying_UD", "user_own_UD", "topics_KD"):
        setattr(world, name, np.zeros_like(getattr(world, name)))
    after = fits_of(world, shown)
    assert (before.present == after.present).all()
    assert (before.buying == after.buying).all()
    assert 0.2 < before.present.std() < 0.5


def test_one_taste_is_one_taste() -> None:
    for name, shared in (("market", False), ("market_one_taste", True)):
        world = population(name)
        fits = fits_of(world, _exposures(world, 2000))
        assert (np.allclose(fits.lasting, fits.buying)) == shared


def test_luck_is_by_name() -> None:
    keys = np.arange(100_000)
    drawn = uniform(5, 3, 1, keys, 7)
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02
    assert drawn[500] == uniform(5, 3, 1, np.array([500]), 7)[0]
    for other in (uniform(6, 3, 1, keys, 7), uniform(5, 4, 1, keys, 7), uniform(5, 3, 2, keys, 7)):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.02


def _frames(table: str) -> pd.DataFrame:
    days = market_days()
    return pd.concat([_of(days[ds], table).to_pandas().assign(ds=ds) for ds in DAYS])


def _of(day: object, table: str) -> pa.Table:
    return getattr(day, table) if table == "events" else day.more[table]  # type: ignore[attr-defined]


def test_conversions_on_pages_are_the_labels_of_events() -> None:
    events, offsite = _frames("events"), _frames("offsite")
    said = offsite[(offsite["attribution"] != "none") & (offsite["kind"] != "page_visit")]
    told = events[events["conversion"] == 1]
    told = told.assign(shown=told["impression_id"].fillna(told["event_id"]))
    assert set(said["impression_id"]) == set(told["shown"])
    assert len(said) == len(told) > 60
    by_id = said.set_index("impression_id")
    for row in told.to_dict("records"):
        found = by_id.loc[row["shown"]]
        assert row[f"{found['kind']}_after_{found['attribution']}"] == 1
        assert (found["ds"], found["user_id"]) == (row["ds"], row["user_id"])


def test_some_visits_are_nobodys_doing() -> None:
    offsite = _frames("offsite")
    own = offsite[offsite["attribution"] == "none"]
    assert own["impression_id"].isna().all()
    assert {"page_visit", "checkout", "add_to_cart", "signup", "lead"} == set(own["kind"])
    visits = offsite[(offsite["attribution"] == "click") & (offsite["kind"] == "page_visit")]
    clicked = _frames("events").query("is_ad and click == 1")
    assert set(visits["impression_id"]) <= set(clicked["event_id"])
    assert 0.7 < len(visits) / len(clicked) < 0.9


def test_ads_that_were_shown_were_candidates_of_their_page() -> None:
    requests = _frames("requests").set_index("request_id")
    events = _frames("events")
    ads = events[events["is_ad"] & events["arrived_at"].isna()]
    assert len(ads) > 1000
    for row in ads.head(500).itertuples():
        asked = requests.loc[row.request_id]
        assert row.pin_id in asked["pin_ids"]
        assert (row.user_id, row.surface) == (asked["user_id"], asked["surface"])
    assert requests["pin_ids"].map(lambda ids: len(set(ids)) == len(ids) <= 32).all()
    campaigns = _frames("campaigns")
    assert set(ads["pin_id"]) <= set(campaigns["pin_id"])


def test_labels_of_sales_are_of_ads_alone() -> None:
    events = _frames("events")
    assert events[~events["is_ad"]]["conversion"].isna().all()
    assert events[events["is_ad"]]["conversion"].notna().all()
    assert events[events["arrived_at"].isna()]["click"].notna().all()


def test_features_of_a_surface_are_null_elsewhere() -> None:
    events = _frames("events")
    for feature, surface in (
        ("query_topic", "SR"),
        ("query_match", "SR"),
        ("related_topic", "RP"),
        ("related_match", "RP"),
        ("feed_page", "HF"),
    ):
        assert (events[feature].notna() == (events["surface"] == surface)).all()


def test_configurations_that_cannot_be() -> None:
    for changes, said in (
        ({"users": 0}, "users: expected >= 1"),
        ({"content_dim": 8}, "content_dim: expected >= taste.dim"),
        ({"page": 5}, "auction.slots: expected places below page"),
        ({"history_days": 20}, "history_days: expected >= conversion.click_days"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(markets.toy(), **changes)


def test_truth_names_every_row() -> None:
    for day in market_days().values():
        assert sorted(day.truth["event_id"].to_pylist()) == sorted(
            day.events["event_id"].to_pylist()
        )
        assert pc.max(day.truth["p_click"]).as_py() < 1
