"""MovieLens 100K: ratings as events; 4 and 5 count as clicks, 5 as conversions.

Source: Harper and Konstan, ACM TiiS 5(4), 2015. Mapping and weaknesses are in docs/datasets.md.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.lake.filing import never_late
from jobs.datasets.base import DayTables
from jobs.datasets.public_files import Frames, PublicFiles
from jobs.datasets.rolling import DAY_US, Rolling, known_entities, split_words, utc

_ROLLING = Rolling(label="liked", days=30)
_RATINGS = dict.fromkeys(("user_id", "item_id", "rating", "timestamp"), "integer")
_USERS = {
    "user_id": "integer",
    "age": "integer",
    "gender": "string",
    "occupation": "string",
    "zip_code": "string",
}
_ITEMS = {"item_id": "integer", "release_year": "string", "class": "string"}

SPEC = DatasetSpec(
    name="movielens",
    description="MovieLens 100K ratings",
    surfaces=("web",),
    actions=("rated", "liked", "loved"),
    labels=(
        Label(name="liked", upstream="ctr", role="primary", meaning="rated 4 or 5"),
        Label(name="loved", upstream="cvr", role="primary", meaning="rated 5"),
        Label(name="liked", upstream="cvr", role="auxiliary", meaning="rated 4 or 5"),
    ),
    features=(
        Feature(name="age", scope="user", kind="numeric", meaning="age in years"),
        Feature(name="gender", scope="user", kind="categorical", meaning="M or F"),
        Feature(name="occupation", scope="user", kind="categorical", meaning="occupation"),
        Feature(name="region", scope="user", kind="categorical", meaning="first of the zip code"),
        *_ROLLING.features(),
        Feature(name="genres", scope="pin", kind="list", meaning="genres", cardinality=64,
                max_len=6),
        Feature(name="release_year", scope="pin", kind="numeric", meaning="year of release"),
        Feature(name="hour", scope="context", kind="categorical", meaning="hour, UTC"),
    ),
    daily_rows=(1, 5_000),
    label_rates={"liked": (0.2, 0.9), "loved": (0.02, 0.6)},
    empty_days="carry",
)  # fmt: skip


def open_folder(folder: Path) -> PublicFiles:
    """The adapter of the data set's files.

    It begins with the densest month: from there no day has fewer than 100 ratings. The days of the
    last five months are sparse.
    """
    return PublicFiles(
        folder=folder,
        spec=SPEC,
        first="1997-11-05",
        last="1998-04-22",
        history_days=7,
        columns={"ratings": _RATINGS, "users": _USERS, "items": _ITEMS},
        cut=_cut,
    )


def _cut(files: Frames, day: int) -> DayTables:
    log = _log(files["ratings"])
    return DayTables(
        events=_events(log[log["day"] == day]),
        users=_user_table(log, files["users"], day),
        pins=_pin_table(log, files["items"], day),
    )


def _log(ratings: pd.DataFrame) -> pd.DataFrame:
    log = ratings.sort_values(["timestamp", "user_id", "item_id"], kind="stable")
    log["event_id"] = log["user_id"].astype(str) + "-" + log["item_id"].astype(str)
    log["ts"] = log["timestamp"] * 1_000_000
    log["day"] = log["ts"] // DAY_US
    log["user_id"] = log["user_id"].astype(str)
    log["pin_id"] = log["item_id"].astype(str)
    log["liked"] = (log["rating"] >= 4).astype("int8")
    log["loved"] = (log["rating"] == 5).astype("int8")
    log["action"] = "rated"
    log.loc[log["liked"] == 1, "action"] = "liked"
    log.loc[log["loved"] == 1, "action"] = "loved"
    return log


def _events(log: pd.DataFrame) -> pa.Table:
    hour = "h" + (log["ts"] // (DAY_US // 24) % 24).astype(str).str.zfill(2)
    events = pa.table(
        {
            "event_id": pa.array(log["event_id"], pa.string()),
            "ts": utc(log["ts"]),
            "user_id": pa.array(log["user_id"], pa.string()),
            "pin_id": pa.array(log["pin_id"], pa.string()),
            "surface": pa.array(["web"] * len(log), pa.string()),
            "action": pa.array(log["action"], pa.string()),
            "duration_s": pa.nulls(len(log), pa.float32()),
            "liked": log["liked"].to_numpy(),
            "loved": log["loved"].to_numpy(),
            "hour": pa.array(hour, pa.string()),
        }
    )
    return never_late(events)


def _user_table(log: pd.DataFrame, users: pd.DataFrame, day: int) -> pa.Table:
    ids = known_entities(log, "user", day)
    known = users.assign(user_id=users["user_id"].astype(str)).set_index("user_id").reindex(ids)
    return pa.table(
        {
            "user_id": pa.array(ids, pa.string()),
            "age": pa.array(known["age"].to_numpy(), from_pandas=True),
            "gender": pa.array(known["gender"], pa.string(), from_pandas=True),
            "occupation": pa.array(known["occupation"], pa.string(), from_pandas=True),
            "region": pa.array(known["zip_code"].str[0], pa.string(), from_pandas=True),
            **_ROLLING.columns(log, ids, day),
        }
    )


def _pin_table(log: pd.DataFrame, items: pd.DataFrame, day: int) -> pa.Table:
    ids = known_entities(log, "pin", day)
    known = items.assign(pin_id=items["item_id"].astype(str)).set_index("pin_id").reindex(ids)
    year = pd.to_numeric(known["release_year"], errors="coerce")
    return pa.table(
        {
            "pin_id": pa.array(ids, pa.string()),
            "genres": split_words(known["class"], " ", 6),
            "release_year": pa.array(year.to_numpy(), from_pandas=True),
        }
    )
