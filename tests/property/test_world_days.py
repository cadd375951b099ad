"""Days of the world: independent of one another, repeatable, and blind to themselves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.base import days_between, shift_day
from simulator.world import World, WorldDay
from tests.data_fixtures import FIRST, tiny_world

LAST = 34
DAYS = days_between(FIRST, shift_day(FIRST, LAST))


@pytest.fixture(scope="module")
def in_order() -> dict[str, WorldDay]:
    world = World(tiny_world(), 7, FIRST)
    return {ds: world.day(ds) for ds in DAYS}


def assert_equal_days(left: WorldDay, right: WorldDay) -> None:
    for name in ("events", "users", "pins", "truth"):
        a, b = getattr(left, name), getattr(right, name)
        differing = [c for c in a.column_names if not _same(a[c], b[c])]
        assert not differing, f"{name}: {differing}"


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    return left.combine_chunks().equals(right.combine_chunks())


@settings(max_examples=6, deadline=None)
@given(number=st.integers(0, LAST))
def test_a_day_alone_equals_the_day_in_order(in_order: dict[str, WorldDay], number: int) -> None:
    ds = shift_day(FIRST, number)
    assert_equal_days(World(tiny_world(), 7, FIRST).day(ds), in_order[ds])


def test_digests_on_disk_change_nothing(in_order: dict[str, WorldDay], tmp_path: Path) -> None:
    for number in (12, 13):
        ds = shift_day(FIRST, number)
        assert_equal_days(World(tiny_world(), 7, FIRST, cache=tmp_path).day(ds), in_order[ds])
    assert len(list(tmp_path.glob("day-*.npz"))) == 14


def test_a_damaged_digest_is_made_again(in_order: dict[str, WorldDay], tmp_path: Path) -> None:
    World(tiny_world(), 7, FIRST, cache=tmp_path).day(DAYS[4])
    whole = (tmp_path / "day-0002.npz").read_bytes()
    (tmp_path / "day-0002.npz").write_bytes(whole[: len(whole) // 2])
    assert_equal_days(World(tiny_world(), 7, FIRST, cache=tmp_path).day(DAYS[5]), in_order[DAYS[5]])
    assert (tmp_path / "day-0002.npz").read_bytes() != whole[: len(whole) // 2]


def test_seeds_make_different_worlds(in_order: dict[str, WorldDay]) -> None:
    other = World(tiny_world(), 8, FIRST).day(DAYS[3])
    assert not other.events["user_id"].equals(in_order[DAYS[3]].events["user_id"])


def _past(in_order: dict[str, WorldDay], ds: str, days: int) -> pd.DataFrame:
    """The impressions and conversions of the days before, from the published tables alone."""
    frames = [
        in_order[d].events.to_pandas().assign(ds=d) for d in DAYS if shift_day(ds, -days) <= d < ds
    ]
    pins = pd.concat([in_order[d].pins.to_pandas() for d in DAYS]).drop_duplicates("pin_id")
    known = pins.set_index("pin_id")[["advertiser", "primary_interest"]]
    return pd.concat(frames).join(known, on="pin_id")


@pytest.mark.parametrize("entity", ["user", "pin"])
def test_saves_are_those_of_earlier_days(in_order: dict[str, WorldDay], entity: str) -> None:
    ds = DAYS[33]
    snapshot = getattr(in_order[ds], f"{entity}s").to_pandas().set_index(f"{entity}_id")
    past = _past(in_order, ds, 30)
    saved = past[past["action"] == "save"].groupby(f"{entity}_id").size()
    expected = saved.reindex(snapshot.index, fill_value=0)
    assert (snapshot[f"{entity}_saves_30d"] == expected).all()
    assert expected.sum() > 20


def test_sequences_are_the_newest_engagements_of_earlier_days(
    in_order: dict[str, WorldDay],
) -> None:
    ds = DAYS[33]
    past = _past(in_order, ds, 30).sort_values("ts", kind="stable")
    engaged = past[~past["action"].isin(["impression", "conversion"])]
    by_user = engaged.groupby("user_id")
    users = in_order[ds].users.to_pandas().set_index("user_id")
    for column, source in (
        ("engaged_pins", "pin_id"),
        ("engaged_actions", "action"),
        ("engaged_surfaces", "surface"),
    ):
        expected = by_user[source].agg(lambda x: list(x)[-50:])
        for user, found in users[column].items():
            assert list(found) == expected.get(user, []), (user, column)
    assert users["engaged_pins"].map(len).max() > 3


def test_context_counts_are_those_of_earlier_days(in_order: dict[str, WorldDay]) -> None:
    ds = DAYS[33]
    past = _past(in_order, ds, 30)
    engaged = past[~past["action"].isin(["impression", "conversion"])]
    today = in_order[ds].events.to_pandas()
    today = today[today["action"] != "conversion"]
    pins = in_order[ds].pins.to_pandas().set_index("pin_id")
    for column, group in (
        ("user_advertiser_engagements", "advertiser"),
        ("user_interest_engagements", "primary_interest"),
    ):
        rows = today.join(pins[[group]], on="pin_id")
        counts = engaged.groupby(["user_id", group]).size().rename("expected")
        expected = rows.join(counts, on=["user_id", group])["expected"].fillna(0)
        assert (rows[column] == expected).all(), column
        assert expected.sum() > 0


def test_affinity_is_the_cosine_with_the_mean_engaged_pin(in_order: dict[str, WorldDay]) -> None:
    ds = DAYS[33]
    past = _past(in_order, ds, 30)
    engaged = past[~past["action"].isin(["impression", "conversion"])]
    vectors = {
        row["pin_id"]: np.frombuffer(row["content"], "<f4")[:32].astype(float)
        for d in DAYS
        for row in in_order[d].pins.select(["pin_id", "content"]).to_pylist()
    }
    means = {
        u: np.mean([vectors[p] for p in g], axis=0) for u, g in engaged.groupby("user_id")["pin_id"]
    }
    today = in_order[ds].events.to_pandas()
    today = today[today["action"] != "conversion"].head(300)
    for row in today.itertuples():
        if row.user_id not in means:
            assert np.isnan(row.affinity)
            continue
        mean = means[row.user_id]
        expected = mean @ vectors[row.pin_id] / np.linalg.norm(mean)
        assert row.affinity == pytest.approx(expected, abs=1e-5)
