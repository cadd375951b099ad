"""The how-to for a user's own data, run as it is written."""

import datetime as dt
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.contracts.errors import InputError
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.datasets.registry import dataset_spec
from tests.data_fixtures import REPOSITORY, Home

DAYS = ("2025-06-01", "2025-06-02")
DECLARATION = re.search(
    r"```toml\n(.*?)```", (REPOSITORY / "docs/howto/own_dataset.md").read_text(), re.DOTALL
)[1]  # type: ignore[index]


def deliver(folder: Path, declaration: str = DECLARATION) -> Path:
    """The shop's files for two days, as a shop would export them."""
    rng = np.random.default_rng(0)
    for ds in DAYS:
        midnight = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
        times = [midnight + dt.timedelta(minutes=10 * i, seconds=7) for i in range(144)]
        clicked = rng.random(144) < 0.2
        events = pd.DataFrame(
            {
                "id": [f"{ds}/{i}" for i in range(144)],
                "customer": rng.integers(0, 10, 144),
                "sku": rng.choice(["shoe", "hat", "scarf"], 144),
                "time": pd.Series(times).astype("datetime64[ns, UTC]"),
                "channel": rng.choice(["web", "app"], 144),
                "what": np.where(clicked, "clicked", "shown"),
                "seconds": rng.random(144),
                "clicked": clicked,
                "is_bought": pd.Series(rng.integers(0, 2, 144)).where(clicked).astype("Int64"),
                "rank": rng.integers(0, 5, 144),
                "internal": 1,
            }
        )
        customers = pd.DataFrame(
            {
                "customer": range(10),
                "country": ["NO", "SE"] * 5,
                "orders": [None, *range(9)],
                "last_products": [["hat"] * (i % 3) for i in range(10)],
            }
        )
        for name, frame in (("events", events), ("customers", customers)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            frame.to_parquet(folder / name / f"{ds}.parquet")
    products = {
        "sku": ["shoe", "hat", "scarf"],
        "tags": [["winter"], [], ["wool", "winter"]],
        "picture": [[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]],
        "price_eur": [99, 20, 35],
    }
    pq.write_table(pa.table(products), folder / "products.parquet")
    path = folder / "shop.toml"
    path.write_text(declaration)
    return path


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Home:
    return Home(tmp_path / "home", monkeypatch, capsys)


def test_the_how_to_works_as_written(home: Home, tmp_path: Path) -> None:
    declaration = deliver(tmp_path / "shop")
    made = home.derm("init", "--dataset", str(declaration))
    assert made.code == 0
    assert "data begins 2025-06-01, published from 2025-06-02" in made.out
    run = home.derm("run", "--from", *DAYS[:1], "--to", *DAYS[1:], "--steps", "ingest,validate")
    assert run.code == 0, run.err
    spec, lake = dataset_spec(str(declaration), ""), Lake(home.path / "lake")
    events = lake.read(spec.events_table(), DAYS[1]).to_pandas()
    source = pd.read_parquet(tmp_path / "shop" / "events" / f"{DAYS[1]}.parquet")
    assert "internal" not in events
    assert events["event_id"].tolist() == source["id"].tolist()
    assert events["user_id"].tolist() == source["customer"].astype(str).tolist()
    assert events["clicked"].tolist() == source["clicked"].astype(int).tolist()
    assert events["bought"].isna().tolist() == source["is_bought"].isna().tolist()
    users = lake.read(spec.users_table(), DAYS[0])
    assert users["orders"].null_count == 1
    pins = lake.read(spec.pins_table(), DAYS[0])
    assert pins["pin_id"].to_pylist() == ["hat", "scarf", "shoe"]
    assert unpack(pins["picture"], 4)[2].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_one_file_of_all_days_is_split_by_time(home: Home, tmp_path: Path) -> None:
    text = DECLARATION.replace("events/{ds}.parquet", "events.parquet")
    declaration = deliver(tmp_path / "shop", text)
    parts = [pq.read_table(tmp_path / "shop" / "events" / f"{ds}.parquet") for ds in DAYS]
    events = pa.concat_tables(parts)
    # The shop writes local times; days are UTC days all the same.
    local = events["time"].cast(pa.timestamp("ms", tz="Europe/Oslo"), safe=False)
    index = events.schema.get_field_index("time")
    pq.write_table(events.set_column(index, "time", local), tmp_path / "shop" / "events.parquet")
    assert home.derm("init", "--dataset", str(declaration)).code == 0
    for ds in DAYS:
        assert home.derm("ingest", "--ds", ds).code == 0
    spec = dataset_spec(str(declaration), "")
    rows = [Lake(home.path / "lake").read(spec.events_table(), ds).num_rows for ds in DAYS]
    assert rows == [144, 144]


def test_a_late_label_is_filed_under_the_day_it_arrived_on(home: Home, tmp_path: Path) -> None:
    """From a file of all days, too: a bought product that the shop heard of a day later."""
    text = DECLARATION.replace("events/{ds}.parquet", "events.parquet")
    text = text.replace(
        'ts = "time"', 'ts = "time"\narrived_at = "heard"\nimpression_id = "of"', 1
    ).replace("history_days", "attribution_days = 7\nhistory_days", 1)
    declaration = deliver(tmp_path / "shop", text)
    parts = [pq.read_table(tmp_path / "shop" / "events" / f"{ds}.parquet") for ds in DAYS]
    events = pa.concat_tables(parts).to_pandas().assign(of=None)
    events["heard"] = pd.Series(pd.NaT, events.index).dt.tz_localize("UTC")
    late = events[(events["time"] < DAYS[1]) & events["is_bought"].isna()].head(3)
    late = late.assign(
        of=late["id"],
        id=late["id"] + "/bought",
        heard=pd.Timestamp(f"{DAYS[1]} 12:00", tz="UTC"),
        what="bought",
        clicked=None,
        is_bought=1,
    )
    whole = pd.concat([events, late]).astype({"clicked": "Int64", "is_bought": "Int64"})
    whole.to_parquet(tmp_path / "shop" / "events.parquet")
    assert home.derm("init", "--dataset", str(declaration)).code == 0
    run = home.derm("run", "--from", *DAYS[:1], "--to", *DAYS[1:], "--steps", "ingest,validate")
    assert run.code == 0, run.err
    spec, lake = dataset_spec(str(declaration), ""), Lake(home.path / "lake")
    first, second = (lake.read(spec.events_table(), ds).to_pandas() for ds in DAYS)
    assert (len(first), len(second)) == (144, 147)
    found = second[second["arrived_at"].notna()].set_index("impression_id")
    assert sorted(found.index) == sorted(late["of"])
    assert (found["ts"] < DAYS[1]).all()
    # Rows lie in the order in which they became known, whatever the time of the impression.
    assert second["arrived_at"].fillna(second["ts"]).is_monotonic_increasing


def test_columns_that_were_not_promised_are_left_out(home: Home, tmp_path: Path) -> None:
    text = re.sub(r"^(surface|action|duration_s) = .*\n", "", DECLARATION, flags=re.MULTILINE)
    declaration = deliver(tmp_path / "shop", text)
    assert home.derm("init", "--dataset", str(declaration)).code == 0
    assert home.derm("ingest", "--ds", DAYS[0]).code == 0
    spec = dataset_spec(str(declaration), "")
    events = Lake(home.path / "lake").read(spec.events_table(), DAYS[0])
    assert set(events["surface"].to_pylist()) == {"web"}
    assert set(events["action"].to_pylist()) == {"shown"}
    assert events["duration_s"].null_count == 144


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'sku"',
            'sku_id"',
            "pins.pin_id (your column 'sku_id') of 2025-06-01: expected the column",
        ),
        (
            'surface = "channel"',
            'surface = "what"',
            "events.surface (your column 'what') of 2025-06-01: expected one of web app",
        ),
        ("dim = 4", "dim = 5", "pins.picture of 2025-06-01: expected type binary"),
        ("max_len = 5", "max_len = 1", "pins.tags of 2025-06-01: expected at most 1 elements"),
        (
            'ts = "time"',
            'ts = "seconds"',
            "events.ts (your column 'seconds') of 2025-06-01: expected type timestamp",
        ),
        (
            "products.parquet",
            "goods.parquet",
            "pins of 2025-06-01: expected a source file; found no file",
        ),
    ],
)
def test_files_that_differ_from_the_declaration(
    home: Home, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    declaration = deliver(tmp_path / "shop", DECLARATION.replace(old, new))
    assert home.derm("init", "--dataset", str(declaration)).code == 0
    result = home.derm("ingest", "--ds", DAYS[0])
    assert result.code == 2
    assert expected in result.err
    assert not (home.path / "lake").exists()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "shop"', "name = shop", "Invalid value"),
        ('name = "shop"', 'nom = "shop"', "nom"),
        ('role = "primary"', 'role = "first"', "role"),
        ("products.parquet", "products.csv", "a CSV becomes one by pyarrow.csv.read_csv"),
        (
            'upstream = "cvr"\nrole = "primary"',
            'upstream = "cvr"\nrole = "task"',
            "needs one",
        ),
        ("dim = 4", "", "dim is for kind 'embedding'"),
        ('kind = "list"', 'kind = "bag"', "kind"),
        ("max_len = 5", 'max_len = "5"', "max_len"),
        ('scope = "pin"\nkind = "numeric"', 'scope = "item"\nkind = "numeric"', "scope"),
        ('name = "orders"', 'name = "country"', "declared twice"),
        ('first_day = "2025-06-01"', 'first_day = "1 June"', "first_day"),
        ('column = "is_bought"', 'column = "is_bought"\ncolour = "red"', "colour"),
        ("history_days = 1", "attribution_days = 7", "needs the columns events.arrived_at"),
        ('ts = "time"', 'ts = "time"\narrived_at = "heard"', "without it there are none"),
        ("clicked = [0.01, 0.6]", "klicked = [0.01, 0.6]", "unknown labels ['klicked']"),
    ],
)
def test_a_wrong_declaration_is_refused_at_init(
    home: Home, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in DECLARATION
    declaration = deliver(tmp_path / "shop", DECLARATION.replace(old, new))
    result = home.derm("init", "--dataset", str(declaration))
    assert result.code == 2
    assert expected in result.err
    assert str(declaration) in result.err
    assert "docs/howto/own_dataset.md" in result.err
    assert not (home.path / "home.json").exists()


def test_the_example_is_toml() -> None:
    assert tomllib.loads(DECLARATION)["name"] == "shop"


def test_a_declaration_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the declaration of a data set is wrong"):
        dataset_spec(str(tmp_path / "gone.toml"), "")
