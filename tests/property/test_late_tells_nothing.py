"""What tells late labels from the positives of the day itself: nothing that a model reads."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from feature_store.contracts.base import days_between, shift_day
from feature_store.lake.lake import Lake
from jobs.datasets.feature_audit import late_labels_told
from jobs.datasets.separation import TwoKinds, auc, auc_alone, codes_of
from models.training.impressions import ImpressionMetrics
from models.training.metrics import BinaryMetrics
from simulator.config import ConversionConfig, WorldConfig
from simulator.world import World
from tests.data_fixtures import FIRST, tiny_world

DAYS = days_between(FIRST, shift_day(FIRST, 15))
SETTLED = DAYS[8:]
BUYERS = tiny_world(users=4_000, pins=300, conversion=ConversionConfig(bias=-1.0))
PROMPT = replace(BUYERS, users=300, conversion=replace(BUYERS.conversion, delayed=0.0))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Days of a world in which conversions are frequent."""
    return live(tmp_path_factory.mktemp("lake"), BUYERS)


def live(root: Path, config: WorldConfig) -> Lake:
    world, lake = World(config, 5, FIRST), Lake(root)
    for ds in DAYS:
        day = world.day(ds)
        lake.overwrite(world.spec.events_table(), ds, day.events)
        lake.overwrite(world.spec.users_table(), ds, day.users)
        lake.overwrite(world.spec.pins_table(), ds, day.pins)
    return lake


def spec_of(config: WorldConfig = BUYERS):
    return World(config, 5, FIRST).spec


@pytest.fixture(scope="module")
def rows(lake: Lake) -> pd.DataFrame:
    """The rows of the settled days, with their user's sequence as of the day of the impression."""
    events = pa.concat_tables([lake.read(spec_of().events_table(), ds) for ds in SETTLED])
    frame = events.to_pandas().assign(ds=pc.strftime(events["ts"], "%Y-%m-%d").to_pandas())
    users = [
        lake.read(spec_of().users_table(), ds, columns=["user_id", "engaged_pins"])
        .to_pandas()
        .assign(ds=ds)
        for ds in DAYS
    ]
    return frame.merge(pd.concat(users), on=["user_id", "ds"], how="left", validate="many_to_one")


def against(late: npt.NDArray, weight: npt.NDArray | None = None) -> TwoKinds:
    ones = np.ones(len(late))
    return TwoKinds(
        positive=late, weight=ones if weight is None else weight, fold=np.zeros(len(late), int)
    )


def converted(rows: pd.DataFrame) -> pd.DataFrame:
    positives = rows[rows["conversion"] == 1]
    late = positives["arrived_at"].notna()
    assert late.sum() > 1_000
    assert (~late).sum() > 500
    return positives.assign(late=late)


def heard_by_midnight(rows: pd.DataFrame) -> npt.NDArray:
    """The chance [N] that a conversion is heard of on the day of its impression."""
    rules = BUYERS.conversion
    left = (rows["ts"].dt.ceil("D") - rows["ts"]).dt.total_seconds().to_numpy() / 86_400
    window = np.where(rows["by_click"], rules.click_days, rules.view_days)
    mean = math.log(rules.delay_mean_days) - rules.delay_sigma**2 / 2

    def passed(days: npt.NDArray) -> npt.NDArray:
        z = (np.log(days) - mean) / (rules.delay_sigma * math.sqrt(2))
        return np.array([0.5 * math.erfc(-x) for x in z])

    return passed(left) / passed(window)


def test_the_hour_tells_what_midnight_cuts_off_and_nothing_else(rows: pd.DataFrame) -> None:
    """A day ends at midnight: the later an impression, the likelier its conversion is late.

    Weighed by how likely each was to be heard of when it was, both kinds have the same hours.
    """
    found = converted(rows)
    typed = [c for c in found.columns if c.endswith("_after_click")]
    found = found.assign(by_click=(found[typed] == 1).any(axis=1))
    found = found[found["ts"].dt.hour < 20]
    chance = heard_by_midnight(found)
    late = found["late"].to_numpy()
    weight = 1 / np.where(late, 1 - chance, chance)
    hour = found["hour"].str[1:].astype(int).to_numpy()
    assert auc(hour, against(late, weight)) == pytest.approx(0.5, abs=0.03)


def test_the_declared_hour_is_that_of_the_time(rows: pd.DataFrame) -> None:
    found = converted(rows)
    differs = found["hour"].str[1:].astype(int).to_numpy() != found["ts"].dt.hour.to_numpy()
    assert auc(differs, against(found["late"].to_numpy())) == pytest.approx(0.5, abs=0.03)
    assert not differs.any()


def test_the_pin_is_as_often_in_the_users_own_sequence(rows: pd.DataFrame) -> None:
    found = converted(rows)
    inside = [p in set(s) for p, s in zip(found["pin_id"], found["engaged_pins"], strict=True)]
    assert 0.05 < np.mean(inside) < 0.95
    told = auc(np.array(inside), against(found["late"].to_numpy()))
    assert told == pytest.approx(0.5, abs=0.03)


def test_the_hour_alone_says_little_of_a_conversion(rows: pd.DataFrame) -> None:
    by_user = pd.util.hash_array(rows["user_id"].to_numpy()) % 4
    ones = np.ones(len(rows))
    all_rows = TwoKinds(
        positive=(rows["conversion"] == 1).to_numpy(), weight=ones, fold=by_user.astype(int)
    )
    assert auc_alone(codes_of(rows["hour"].to_numpy(str)), all_rows) <= 0.55


def test_a_tree_over_all_features_tells_nothing(lake: Lake) -> None:
    told = late_labels_told(lake, spec_of(), DAYS[-1], "cvr")
    assert told.late > 200
    assert told.prompt > 100
    assert told.auc < 0.56


@pytest.mark.parametrize("leak", ["hour", "user_interest_engagements"])
def test_a_feature_of_the_arrival_is_named(lake: Lake, leak: str) -> None:
    """The mistake that the contract forbids, made in the lake itself."""
    ds, table = DAYS[-1], spec_of().events_table()
    events = lake.read(table, ds)
    arrival = {
        "hour": pc.binary_join_element_wise("h", pc.strftime(events["arrived_at"], "%H"), ""),
        # By then the click on this very Pin has been counted, too.
        "user_interest_engagements": pc.add(events["user_interest_engagements"], 1),
    }
    changed = pc.if_else(pc.is_valid(events["arrived_at"]), arrival[leak], events[leak])
    spoilt = events.set_column(events.schema.get_field_index(leak), leak, changed)
    lake.overwrite(table, ds, spoilt.cast(events.schema))
    try:
        told = late_labels_told(lake, spec_of(), ds, "cvr")
    finally:
        lake.overwrite(table, ds, events)
    assert told.auc - 3 * told.error > 0.6
    assert told.by[0] == leak


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The control: a world in which every conversion is heard of at once."""
    return live(tmp_path_factory.mktemp("prompt"), PROMPT)


def test_a_world_without_delay_has_nothing_to_compare(prompt: Lake) -> None:
    told = late_labels_told(prompt, spec_of(PROMPT), DAYS[-1], "cvr")
    assert told.late == told.prompt == 0
    assert math.isnan(told.auc)


def test_without_delay_it_does_not_matter_what_is_scored(lake: Lake, prompt: Lake) -> None:
    """Every row, impressions alone, or these by their eventual labels: one number, or three."""
    every, shown, eventual = scored(prompt, PROMPT)
    assert every == shown == eventual
    every, shown, eventual = scored(lake, BUYERS)
    assert every["rows"] > shown["rows"] == eventual["rows"]
    assert min(every["base_rate"], eventual["base_rate"]) > 1.2 * shown["base_rate"]
    assert len({round(x["auc"], 4) for x in (every, shown, eventual)}) == 3


def scored(lake: Lake, config: WorldConfig) -> list[dict]:
    """Metrics of one fixed prediction of a day: of all rows, of impressions, by what came later."""
    table, ds = spec_of(config).events_table(), SETTLED[0]
    names = ["event_id", "impression_id", "arrived_at", "conversion", "position"]
    events = lake.read(table, ds, columns=names)
    later = pa.concat_tables([lake.read(table, day, columns=names) for day in SETTLED])
    came = later.filter(pc.equal(later["conversion"], 1))["impression_id"]
    known = torch.tensor(events["conversion"].to_numpy(), dtype=torch.float32)
    late = torch.tensor(pc.is_valid(events["arrived_at"]).to_numpy())
    arrived = torch.tensor(pc.is_in(events["event_id"], came.drop_null()).to_numpy())
    logit = 3.0 - 0.2 * torch.tensor(events["position"].to_numpy(), dtype=torch.float32)
    every, shown, eventual = BinaryMetrics(), ImpressionMetrics(), ImpressionMetrics()
    every.update(logit, known)
    shown.update(logit, known, {"late": late})
    eventual.update(logit, torch.where(arrived & ~late, 1.0, known), {"late": late})
    return [metrics.result() for metrics in (every, shown, eventual)]
