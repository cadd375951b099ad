"""The simulated world: base rates, hidden probabilities, late conversions, lives."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import days_between, shift_day
from feature_store.lake.schemas import arrow_schema, unpack
from simulator.behaviour import simulate_day
from simulator.config import CONVERSION_TYPES, toy
from simulator.population import Population, brownian
from simulator.spec import typed_label
from simulator.world import World, WorldDay
from tests.data_fixtures import FIRST, tiny_world

TYPED = [typed_label(k, a) for k in CONVERSION_TYPES for a in ("click", "view")]


@pytest.fixture(scope="module")
def toy_days() -> list[WorldDay]:
    world = World(toy(), 0, FIRST)
    return [world.day(ds) for ds in days_between(FIRST, shift_day(FIRST, 13))]


def _impressions(day: WorldDay) -> pa.Table:
    return day.events.filter(pc.not_equal(day.events["action"], "conversion"))


def _late(day: WorldDay) -> pa.Table:
    return day.events.filter(pc.equal(day.events["action"], "conversion"))


def test_toy_rates_are_those_of_an_advertising_site(toy_days: list[WorldDay]) -> None:
    impressions = pa.concat_tables([_impressions(d) for d in toy_days])
    clicks = impressions.filter(pc.equal(impressions["click"], 1))
    late = sum(_late(d).num_rows for d in toy_days)
    after_click = sum(
        pc.sum(pc.fill_null(d.events[name], 0)).as_py() for d in toy_days for name in TYPED[::2]
    )
    assert 6_000 < impressions.num_rows / len(toy_days) < 10_000
    assert 0.02 <= pc.mean(impressions["click"]).as_py() <= 0.05
    assert 0.03 <= after_click / clicks.num_rows <= 0.08
    assert 0.3 < pc.mean(clicks["good_click"]).as_py() < 0.7
    assert late > 100


def test_outcomes_follow_the_truth(toy_days: list[WorldDay]) -> None:
    impressions = pa.concat_tables([_impressions(d).sort_by("event_id") for d in toy_days])
    truth = pa.concat_tables([d.truth.slice(0, _impressions(d).num_rows) for d in toy_days])
    assert truth["event_id"].equals(impressions["event_id"])
    for label, probability in (("click", "p_click"), ("good_click", "p_good_click")):
        drawn = impressions[label].to_numpy().astype(float)
        expected = truth[probability].to_numpy().astype(float)
        spread = np.sqrt((expected * (1 - expected)).sum())
        assert abs(drawn.sum() - expected.sum()) < 4 * spread
        # And row by row: the top decile of the truth is clicked far more often than the rest.
        top = expected >= np.quantile(expected, 0.9)
        assert drawn[top].mean() > 2 * drawn[~top].mean()


def test_the_truth_of_conversions_is_what_is_attributed() -> None:
    population = Population(tiny_world(users=20_000, churn=0.0), 1)
    log = simulate_day(population, 3)
    expected = log.p_conversion.astype(float)
    spread = np.sqrt((expected * (1 - expected)).sum())
    assert abs((log.conversion >= 0).sum() - expected.sum()) < 4 * spread


def test_a_late_conversion_repeats_its_impression(toy_days: list[WorldDay]) -> None:
    origin = {row["event_id"]: row for day in toy_days for row in _impressions(day).to_pylist()}
    told = {"event_id", "arrived_at", "impression_id", "action"}
    carried = set(toy_days[0].events.column_names) - told - {"click", "good_click", "conversion"}
    carried -= set(TYPED)
    assert {"ts", "user_id", "pin_id", "surface", "hour", "affinity"} <= carried
    for ds, day in zip(days_between(FIRST, shift_day(FIRST, 13)), toy_days, strict=True):
        for row in _late(day).to_pylist():
            assert row["arrived_at"].date().isoformat() == ds
    late = [row for day in toy_days for row in _late(day).to_pylist()]
    assert len(late) > 300
    for row in late:
        impression = origin[row["impression_id"]]
        assert row["event_id"] == row["impression_id"] + "-late"
        assert {c: row[c] for c in carried} == {c: impression[c] for c in carried}
        assert row["arrived_at"].date() > impression["ts"].date()
        assert impression["conversion"] == 0  # the fake negative
        assert row["conversion"] == 1
        assert row["click"] is None
        assert row["good_click"] is None
        assert [row[name] for name in TYPED].count(1) == 1
        assert [row[name] for name in TYPED].count(None) == len(TYPED) - 1
        attributed = next(name for name in TYPED if row[name] == 1)
        assert attributed.endswith("click") == (impression["click"] == 1)


def test_late_labels_have_the_truth_of_their_impressions(toy_days: list[WorldDay]) -> None:
    truth = {row["event_id"]: row for day in toy_days for row in day.truth.to_pylist()}
    for day in toy_days:
        assert sorted(day.truth["event_id"].to_pylist()) == sorted(
            day.events["event_id"].to_pylist()
        )
        for row in _late(day).to_pylist():
            mine, origin = truth[row["event_id"]], truth[row["impression_id"]]
            assert mine | {"event_id": None} == origin | {"event_id": None}


def test_a_world_without_delay_has_the_same_outcomes_at_once() -> None:
    world = tiny_world()
    prompt = replace(world, conversion=replace(world.conversion, delayed=0.0))
    halves = replace(world, conversion=replace(world.conversion, delayed=0.5))
    worlds = (World(config, 3, FIRST) for config in (world, halves, prompt))
    slow, half, fast = ([made.day(ds) for ds in DAYS] for made in worlds)
    assert not sum(_late(day).num_rows for day in fast)
    late = [sum(_late(day).num_rows for day in days) for days in (slow, half)]
    assert late[1] / late[0] == pytest.approx(0.5, abs=0.1)
    outcomes = ("conversion", *TYPED)
    for a, b in zip(slow, fast, strict=True):
        same = [c for c in a.events.column_names if c not in outcomes]
        assert _impressions(a).select(same).equals(_impressions(b).select(same))
    # What is heard of the first days in the end, on the day itself or late.
    told = [_eventually(days, TOLD) for days in (slow, half, fast)]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) > 20


DAYS = days_between(FIRST, shift_day(FIRST, 31))
TOLD = shift_day(FIRST, 1)


def _eventually(days: list[WorldDay], last: str) -> set[str]:
    """The impressions up to a day that have converted in the end."""
    rows = pa.concat_tables([d.events for d in days])
    rows = rows.filter(pc.less_equal(pc.strftime(rows["ts"], "%Y-%m-%d"), last))
    positive = rows.filter(pc.equal(rows["conversion"], 1))
    return set(pc.coalesce(positive["impression_id"], positive["event_id"]).to_pylist())


def test_same_day_conversions_set_the_labels_of_the_impression(toy_days: list[WorldDay]) -> None:
    impressions = pa.concat_tables([_impressions(d) for d in toy_days])
    typed = np.stack([impressions[name].to_numpy() for name in TYPED])
    assert (typed.sum(axis=0) == impressions["conversion"].to_numpy()).all()
    assert pc.sum(impressions["conversion"]).as_py() > 50


def test_conversions_driven_by_another_taste_than_clicks(toy_days: list[WorldDay]) -> None:
    truth = pa.concat_tables([d.truth.slice(0, _impressions(d).num_rows) for d in toy_days])
    clicks, sales = truth["p_click"].to_numpy(), truth["p_conversion"].to_numpy()
    assert 0.1 < np.corrcoef(np.log(clicks), np.log(sales))[0, 1] < 0.9


def test_snapshots_hold_those_who_exist(toy_days: list[WorldDay]) -> None:
    first, last = toy_days[0], toy_days[-1]
    for day in (first, last):
        for key, table in (("user_id", day.users), ("pin_id", day.pins)):
            seen = _impressions(day)[key]
            assert pc.all(pc.is_in(seen, table[key].combine_chunks())).as_py()
            assert len(pc.unique(table[key])) == table.num_rows
    gone = set(first.users["user_id"].to_pylist()) - set(last.users["user_id"].to_pylist())
    new = set(last.users["user_id"].to_pylist()) - set(first.users["user_id"].to_pylist())
    share = 1 - 0.98**13
    assert len(gone) / 2000 == pytest.approx(share, abs=0.05)
    assert len(new) / 2000 == pytest.approx(share, abs=0.05)


def test_tables_have_the_declared_schema(toy_days: list[WorldDay]) -> None:
    spec = World(toy(), 0, FIRST).spec
    day = toy_days[5]
    assert day.events.schema.equals(arrow_schema(spec.events_table()))
    assert day.users.schema.equals(arrow_schema(spec.users_table()))
    assert day.pins.schema.equals(arrow_schema(spec.pins_table()))
    content = unpack(day.pins["content"], 64)
    assert np.linalg.norm(content, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_popularity_is_concentrated(toy_days: list[WorldDay]) -> None:
    counts = pc.value_counts(toy_days[0].events["pin_id"])
    ordered = np.sort(counts.field("counts").to_numpy())[::-1]
    assert ordered[: len(ordered) // 10].sum() > 0.4 * ordered.sum()


@pytest.mark.parametrize("day", [1, 2, 7, 31, 64, 100])
def test_a_walk_spreads_with_the_square_root_of_time(day: int) -> None:
    walk = brownian(0, day, 128, (2000, 32)).astype(float)
    assert (walk**2).sum(axis=1).mean() == pytest.approx(day, rel=0.03)


def test_steps_of_a_walk_are_independent_and_of_equal_size() -> None:
    path = np.stack([brownian(0, d, 64, (2000, 32)) for d in range(20)]).astype(float)
    steps = np.diff(path, axis=0)
    assert (steps**2).sum(axis=2).mean(axis=1) == pytest.approx(np.ones(19), rel=0.05)
    following = (steps[:-1] * steps[1:]).sum(axis=2).mean(axis=1)
    assert np.abs(following).max() < 0.05


@pytest.mark.parametrize("ds", ["2025-02-28", "2025-04-10"])
def test_days_outside_the_world_are_refused(ds: str) -> None:
    world = World(tiny_world(), 0, FIRST)
    with pytest.raises(
        ValueError, match=f"expected a day from 2025-03-01 to 2025-04-09, found {ds}"
    ):
        world.day(ds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "users: expected >= 1, found 0"),
        ({"content_dim": 8}, "content_dim: expected >= taste.dim = 32, found 8"),
        ({"history_days": 10}, "conversion.click_days: expected <= history_days = 10, found 30"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_world(**change)
