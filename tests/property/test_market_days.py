"""Days of a market: independent of one another, repeatable, and blind to themselves."""

from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.base import shift_day
from jobs.datasets.base import DayTables
from jobs.datasets.checks import Problems
from jobs.steps.ingest import checked, conformed
from simulator.market.spec import market_spec
from simulator.market.world import Market
from simulator.world import WorldDay
from tests.data_fixtures import FIRST
from tests.market_fixtures import DAYS, LAST, market_days, tiny_market

SNAPSHOTS = ("events", "users", "pins", "truth")


def assert_equal_days(left: WorldDay, right: WorldDay) -> None:
    for name in SNAPSHOTS:
        assert getattr(left, name).equals(getattr(right, name)), name
    assert {n: t.equals(right.more[n]) for n, t in left.more.items()} == dict.fromkeys(
        right.more, True
    )


@settings(max_examples=4, deadline=None)
@given(number=st.integers(0, LAST))
def test_a_day_alone_equals_the_day_in_order(number: int) -> None:
    ds = shift_day(FIRST, number)
    assert_equal_days(Market("market", tiny_market(), 7, FIRST).day(ds), market_days()[ds])


def test_digests_on_disk_change_nothing(tmp_path: Path) -> None:
    for number in (14, 15):
        market = Market("market", tiny_market(), 7, FIRST, tmp_path)
        assert_equal_days(market.day(DAYS[number]), market_days()[DAYS[number]])
    (tmp_path / "day-0013.npz").write_bytes(b"damaged")
    market = Market("market", tiny_market(), 7, FIRST, tmp_path)
    assert_equal_days(market.day(DAYS[15]), market_days()[DAYS[15]])


def test_every_day_keeps_its_contract() -> None:
    spec = market_spec("market", tiny_market())
    for ds, day in market_days().items():
        tables = DayTables(events=day.events, users=day.users, pins=day.pins, more=day.more)
        problems = Problems(ds)
        checked(spec, conformed(spec, tables, problems), problems)


def _past(ds: str, days: int) -> pd.DataFrame:
    """Impressions of the days before, from the published tables alone, with their Pins."""
    chosen = [d for d in DAYS if shift_day(ds, -days) <= d < ds]
    frames = [market_days()[d].events.to_pandas().assign(ds=d) for d in chosen]
    pins = pd.concat([market_days()[d].pins.to_pandas() for d in DAYS]).drop_duplicates("pin_id")
    rows = pd.concat(frames)
    rows = rows[rows["arrived_at"].isna()]
    return rows.join(pins.set_index("pin_id")[["advertiser", "primary_interest"]], on="pin_id")


def test_sequences_are_the_newest_actions_of_earlier_days() -> None:
    ds = DAYS[LAST]
    past = _past(ds, 12)
    acted = past[past["action"] != "impression"].sort_values(["ds", "event_id"], kind="stable")
    users = market_days()[ds].users.to_pandas().set_index("user_id")
    for column, source in (
        ("engaged_pins", "pin_id"),
        ("engaged_actions", "action"),
        ("engaged_surfaces", "surface"),
    ):
        expected = acted.groupby("user_id")[source].agg(lambda x: list(x)[-20:])
        for user, found in users[column].items():
            assert list(found) == expected.get(user, []), (user, column)
    assert users["engaged_pins"].map(len).max() == 20


def test_pages_and_sales_of_a_user_are_those_of_earlier_days() -> None:
    ds = DAYS[LAST]
    frames = [
        market_days()[d].more["offsite"].to_pandas() for d in DAYS if shift_day(ds, -12) <= d < ds
    ]
    offsite = pd.concat(frames)
    own = offsite[offsite["attribution"] == "none"]
    pages = own.groupby("user_id")["item_id"].agg(list)
    users = market_days()[ds].users.to_pandas().set_index("user_id")
    for user, found in users["visited_items"].items():
        assert list(found) == pages.get(user, [])[-50:]
    sold = offsite[(offsite["attribution"] != "none") & (offsite["kind"] != "page_visit")]
    shown = sold["impression_id"].str[1:5].astype(int)
    sold = sold[shown >= LAST - 6]
    advertisers = sold.groupby("user_id")["advertiser_id"].agg(list)
    for user, found in users["converted_advertisers"].items():
        assert list(found) == advertisers.get(user, []), user
    assert sum(users["converted_advertisers"].map(len)) > 20


def test_counts_in_rows_are_those_of_earlier_days() -> None:
    ds = DAYS[LAST]
    acted = _past(ds, 6).query("action != 'impression'")
    today = market_days()[ds].events.to_pandas()
    today = today[today["arrived_at"].isna()]
    pins = market_days()[ds].pins.to_pandas().set_index("pin_id")
    for column, group in (
        ("user_advertiser_engagements", "advertiser"),
        ("user_interest_engagements", "primary_interest"),
    ):
        rows = today.join(pins[[group]], on="pin_id")
        counts = acted.groupby(["user_id", group]).size().rename("expected")
        expected = rows.join(counts, on=["user_id", group])["expected"].fillna(0)
        there = rows[group].notna()
        assert (rows[column][there] == expected[there]).all(), column
        assert rows[column][~there].isna().all()
        assert expected.sum() > 0


def test_late_labels_carry_what_their_impression_carried() -> None:
    told = {"event_id", "arrived_at", "impression_id", "action"}
    spec = market_spec("market", tiny_market())
    labels = {x.name for x in spec.labels}
    carried = [c.name for c in spec.events_table().columns if c.name not in told | labels]
    origin = {
        row["event_id"]: row for day in market_days().values() for row in day.events.to_pylist()
    }
    late = [row for row in origin.values() if row["arrived_at"]]
    assert len(late) > 40
    for row in late:
        impression = origin[row["impression_id"]]
        assert {c: row[c] for c in carried} == {c: impression[c] for c in carried}
        assert impression["conversion"] == 0
