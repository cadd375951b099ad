"""Readers of timelines and edges on a market, and the data set without its truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.datasets import DatasetSpec
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.reading.actions import actions
from feature_store.reading.edges import edges
from feature_store.reading.timelines import timelines
from jobs.datasets.registry import open_adapter, simulated_folder
from simulator.market.spec import market_spec
from tests.market_fixtures import DAYS, market_days, tiny_market

READ = DAYS[:5]


@pytest.fixture(scope="module")
def spec() -> DatasetSpec:
    return market_spec("market", tiny_market())


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, spec: DatasetSpec) -> Lake:
    made = Lake(tmp_path_factory.mktemp("lake"))
    for ds in READ:
        made.overwrite(spec.events_table(), ds, market_days()[ds].events)
    return made


def _impressions() -> pd.DataFrame:
    rows = pd.concat([market_days()[ds].events.to_pandas() for ds in READ])
    return rows[rows["arrived_at"].isna()]


def test_timelines_hold_every_action_of_a_user(
    lake: Lake, spec: DatasetSpec, tmp_path: Path
) -> None:
    expected = _impressions()
    with actions(lake, spec, READ, tmp_path, buckets=4) as divided:
        assert divided.dropped == 0
        batches = list(timelines(divided, users=16, max_actions=10_000))
    assert sum(len(b.pin_A) for b in batches) == len(expected)
    user = expected["user_id"].value_counts().index[0]
    mine = expected[expected["user_id"] == user].sort_values("ts", ascending=False)
    key = stable_hash(pa.array([user]))[0]
    (batch,) = (b for b in batches if key in b.user_U)
    number = np.flatnonzero(batch.user_U == key)[0]
    rows = slice(batch.offsets[number], batch.offsets[number + 1])
    ts = mine["ts"].to_numpy("datetime64[us]").astype(np.int64)
    assert np.array_equal(batch.ts_A[rows], ts)
    names = np.array(("", *spec.actions))[batch.action_A[rows]]
    assert pd.Series(names).value_counts().to_dict() == mine["action"].value_counts().to_dict()


def test_edges_count_every_action_once(lake: Lake, spec: DatasetSpec, tmp_path: Path) -> None:
    expected = _impressions().groupby(["user_id", "action", "pin_id"]).size()
    with actions(lake, spec, READ, tmp_path, buckets=4) as divided:
        found = list(edges(divided, ds=READ[-1]))
    assert sum(len(e) for e in found) == len(expected)
    assert sum(e.count_K.sum() for e in found) == expected.sum()


def test_a_day_without_its_truth_is_the_same_day(tmp_path: Path) -> None:
    config = tiny_market()
    folder = simulated_folder(tmp_path) / f"ds={READ[0]}"
    folder.mkdir(parents=True)
    day = market_days()[READ[0]]
    tables = {"events": day.events, "users": day.users, "pins": day.pins, "truth": day.truth}
    for name, rows in (tables | dict(day.more)).items():
        pq.write_table(rows, folder / f"{name}.parquet")
    adapter = open_adapter("market", "", tmp_path, config)
    before = adapter.fingerprint(READ[0])
    assert folder / "truth.parquet" not in adapter.files(READ[0])
    (folder / "truth.parquet").unlink()
    assert adapter.fingerprint(READ[0]) == before
    read = adapter.read_day(READ[0])
    assert "p_click" not in read.events.column_names
    assert set(read.more) == {"offsite", "requests", "campaigns"}
