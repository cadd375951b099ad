"""The adapters of the three public data sets, on the data itself where it is there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import days_between, shift_day
from jobs import settings
from jobs.commands.preparation import days_to_publish
from jobs.datasets.base import Adapter
from jobs.datasets.checks import Problems
from jobs.datasets.normal import normal_day
from jobs.datasets.registry import open_adapter
from jobs.steps.ingest import checked, conformed
from simulator.config import toy
from tests.data_fixtures import Home, real_data

pytestmark = pytest.mark.data
LAST = {"kuairand": "2022-04-21", "movielens": "1998-04-22", "trivago": "2018-11-08"}


def typed(adapter: Adapter, ds: str) -> dict[str, pa.Table]:
    problems = Problems(ds)
    tables = conformed(adapter.spec, adapter.read_day(ds), problems)
    carried = adapter.spec.empty_days == "carry"
    return checked(adapter.spec, tables, problems, may_be_empty=carried)


def day_of(dataset: str, ds: str) -> dict[str, pa.Table]:
    folder = real_data(dataset)
    adapter = open_adapter(dataset, str(folder), folder, toy())
    return typed(adapter, ds)


@pytest.mark.parametrize("dataset", LAST)
def test_every_day_passes_its_contract(
    dataset: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = real_data(dataset)
    adapter = open_adapter(dataset, str(folder), folder, toy())
    days = days_between(adapter.first_day(), LAST[dataset])
    for ds in days[:: max(len(days) // 6, 1)]:
        events = typed(adapter, ds)["events"]
        if len(events) or adapter.spec.empty_days == "refuse":
            assert [c for c in normal_day(adapter.spec, events, ds) if c.breaks] == []
    home = Home(tmp_path_factory.mktemp(dataset), monkeypatch, capsys)
    assert home.derm("init", "--dataset", dataset, "--source", str(folder)).code == 0
    assert home.derm("ingest", "--ds", LAST[dataset]).code == 0
    assert home.derm("validate", "--ds", LAST[dataset]).code == 0
    after = home.derm("ingest", "--ds", "2030-01-01")
    if adapter.spec.empty_days == "refuse":
        assert after.code == 2
        assert "found an empty day" in after.err
    else:
        assert after.code == 0
        assert "no_events=carried over" in after.out


def kuairand_log(folder: Path) -> pd.DataFrame:
    """The file without rows that repeat another but for their Beijing date and hour."""
    raw = pd.read_parquet(folder / "log.parquet")
    return raw.drop_duplicates([c for c in raw.columns if c not in ("date", "hourmin")])


def test_kuairand_days_hold_every_row_of_the_file_once() -> None:
    folder = real_data("kuairand")
    distinct = kuairand_log(folder)
    days = days_between("2022-04-08", "2022-04-21")
    ids = [e for ds in days for e in day_of("kuairand", ds)["events"]["event_id"].to_pylist()]
    before = (distinct["time_ms"] < pd.Timestamp("2022-04-08").value // 1_000_000).sum()
    assert before == 269
    assert len(set(ids)) == len(ids) == len(distinct) - before


def test_kuairand_history_ends_before_the_day() -> None:
    folder, ds = real_data("kuairand"), "2022-04-15"
    raw = kuairand_log(folder).sort_values("time_ms", kind="stable")
    start = pd.Timestamp(ds).value // 1_000_000
    past = raw[(raw["time_ms"] < start) & (raw["time_ms"] >= start - 7 * 86_400_000)]
    users = day_of("kuairand", ds)["users"].to_pandas().set_index("user_id")
    clicked = past[past["is_click"] == 1].groupby("user_id")["video_id"].agg(list)
    for user, videos in clicked.items():
        assert list(users.loc[str(user), "engaged_pins"]) == [str(v) for v in videos[-50:]]


def test_movielens_labels_and_dense_month() -> None:
    folder = real_data("movielens")
    ratings = pd.read_parquet(folder / "ratings.parquet")
    day = ratings["timestamp"] // 86_400 - (pd.Timestamp("1997-11-05").value // 86_400_000_000_000)
    assert day[(day >= 0) & (day < 30)].value_counts().reindex(range(30)).min() >= 100
    events = day_of("movielens", "1997-11-13")["events"]
    mine = ratings[day == 8]
    assert pc.sum(events["liked"]).as_py() == (mine["rating"] >= 4).sum()
    assert pc.sum(events["loved"]).as_py() == (mine["rating"] == 5).sum()


def test_trivago_lists_are_exploded_with_one_click_out_each() -> None:
    folder = real_data("trivago")
    events = pa.concat_tables(
        [day_of("trivago", d)["events"] for d in ("2018-11-07", LAST["trivago"])]
    )
    assert events.num_rows == 312_539
    assert pc.sum(events["clickout"]).as_py() == 13_596
    engaged = events["engaged"].to_numpy().astype(bool)
    clicked = events["clickout"].to_numpy()
    assert engaged.mean() == pytest.approx(0.0316, abs=0.003)
    assert clicked[engaged].mean() == pytest.approx(0.414, abs=0.02)
    assert clicked[~engaged].mean() == pytest.approx(0.031, abs=0.003)
    raw = pd.read_parquet(folder / "events.parquet")
    assert np.isfinite(events["price"].to_numpy()).all()
    assert (
        pc.count_distinct(events["user_id"]).as_py()
        == raw[raw["action_type"] == "clickout item"]["user_id"].nunique()
    )


@pytest.mark.parametrize(
    ("dataset", "file"),
    [
        ("kuairand", "log"),
        ("kuairand", "user_features"),
        ("movielens", "ratings"),
        ("movielens", "items"),
        ("trivago", "events"),
    ],
)
def test_a_file_that_is_not_the_data_set_is_refused(
    dataset: str,
    file: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("source")
    for path in real_data(dataset).glob("*.parquet"):
        data = pd.read_parquet(path)
        if path.stem == file:
            data = data.rename(columns={data.columns[0]: "renamed"}).assign(
                **{data.columns[1]: 1.5 if data.dtypes.iloc[1].kind == "O" else "text"}
            )
        data.to_parquet(folder / path.name)
    home = Home(tmp_path_factory.mktemp("home"), monkeypatch, capsys)
    assert home.derm("init", "--dataset", dataset, "--source", str(folder)).code == 0
    result = home.derm("ingest", "--ds", LAST[dataset])
    assert result.code == 2
    assert "expected the column" in result.err
    assert f"{file}.parquet" in result.err
    assert not (home.path / "lake").exists()


@pytest.mark.parametrize(("dataset", "days"), [("trivago", 2), ("kuairand", 3)])
def test_a_run_ends_where_the_data_does(dataset: str, days: int, tmp_path: Path) -> None:
    folder = real_data(dataset)
    start = shift_day(LAST[dataset], 1 - days)
    home = settings.Home(
        dataset=dataset, source=str(folder), recipe="toy", first_ds=start, start_ds=start
    )
    found = days_to_publish(home, settings.Settings(home=tmp_path), 7)
    assert found == days_between(start, LAST[dataset])
