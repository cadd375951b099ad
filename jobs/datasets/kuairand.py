"""KuaiRand-27K, the like/hate subset: short videos with click and long view.

Source: Gao et al., CIKM 2022, doi 10.1145/3511808.3557624. Mapping and weaknesses are in
docs/datasets.md. A day is a UTC day of `time_ms`, not the Beijing date of the file.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from feature_store.contracts.base import day_number
from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.lake.filing import never_late
from jobs.datasets.base import DayTables
from jobs.datasets.public_files import Frames, PublicFiles
from jobs.datasets.rolling import DAY_US, Rolling, known_entities, utc

_ROLLING = Rolling(label="click", days=7)
_RANGES = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
_ANONYMOUS = tuple(f"onehot_feat{i}" for i in range(12))
_USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_LOG = dict.fromkeys(
    (
        *("user_id", "video_id", "time_ms", "play_time_ms", "duration_ms"),
        *("is_click", "long_view", "label"),
        # Not used, but two rows that differ in them are not duplicates.
        *("is_follow", "is_comment", "is_forward", "is_profile_enter", "comment_stay_time"),
    ),
    "integer",
)
_USERS = {
    "user_id": "integer",
    **dict.fromkeys(_RANGES, "string"),
    **dict.fromkeys(_ANONYMOUS, "number"),
    **dict.fromkeys(_USER_NUMBERS, "integer"),
}
_VIDEOS = {
    "video_id": "integer",
    "author_id": "integer",
    "video_type": "string",
    "upload_type": "string",
    "tag": "string",
}

SPEC = DatasetSpec(
    name="kuairand",
    description="KuaiRand-27K short-video events, the subset with a like or a dislike",
    surfaces=("feed",),
    actions=("impression", "click", "long_view"),
    labels=(
        Label(name="click", upstream="ctr", role="primary", meaning="clicked, or validly played"),
        Label(name="like", upstream="ctr", role="task", meaning="liked (otherwise disliked)"),
        Label(
            name="long_view",
            upstream="cvr",
            role="primary",
            meaning="played to the end, or for 18 s or more",
        ),
        Label(
            name="click", upstream="cvr", role="auxiliary", meaning="clicked, or validly played"
        ),
    ),
    features=(
        *(
            Feature(
                name=name, scope="user", kind="categorical", meaning=f"{name} of the source",
                cardinality=2048,
            )
            for name in (*_RANGES, *_ANONYMOUS)
        ),
        *(
            Feature(name=name, scope="user", kind="numeric", meaning=f"{name} of the source")
            for name in _USER_NUMBERS
        ),
        *_ROLLING.features(),
        Feature(name="author_id", scope="pin", kind="categorical", meaning="who made the video",
                cardinality=4096),
        Feature(name="video_type", scope="pin", kind="categorical", meaning="normal or ad"),
        Feature(name="upload_type", scope="pin", kind="categorical", meaning="how it was made"),
        Feature(name="tag", scope="pin", kind="categorical", meaning="first tag of the video"),
        Feature(name="video_s", scope="pin", kind="numeric", meaning="length of the video, s"),
        Feature(name="hour", scope="context", kind="categorical", meaning="hour, UTC"),
    ),
    daily_rows=(1_000, 10_000),
    label_rates={"click": (0.4, 0.9), "long_view": (0.25, 0.75)},
    # The last day ends at midnight in Beijing, 8 hours early.
    freshness_hours=12,
)  # fmt: skip


# The first whole UTC day; the 269 rows of the evening before are not used.
_FIRST = "2022-04-08"


def open_folder(folder: Path) -> PublicFiles:
    """The adapter of the data set's files."""
    return PublicFiles(
        folder=folder,
        spec=SPEC,
        first=_FIRST,
        last="2022-04-21",
        history_days=7,
        columns={"log": _LOG, "user_features": _USERS, "video_features_basic_pool": _VIDEOS},
        cut=_cut,
    )


def _cut(files: Frames, day: int) -> DayTables:
    events = _log(files["log"])
    events = events[events["day"] >= day_number(_FIRST)]
    return DayTables(
        events=_events(events[events["day"] == day]),
        users=_user_table(events, files["user_features"], day),
        pins=_pin_table(events, files["video_features_basic_pool"], day),
    )


def _log(raw: pd.DataFrame) -> pd.DataFrame:
    """The log in time order, ids as they will be.

    Rows that differ in nothing but the file's Beijing date and hour are duplicates: one is kept.
    """
    log = raw.reset_index(names="row").drop_duplicates(list(raw.columns))
    log = log.sort_values(["time_ms", "row"], kind="stable")
    log["event_id"] = "k" + log["row"].astype(str).str.zfill(6)
    log["ts"] = log["time_ms"] * 1000
    log["day"] = log["ts"] // DAY_US
    log["user_id"] = log["user_id"].astype(str)
    log["pin_id"] = log["video_id"].astype(str)
    log["action"] = "impression"
    log.loc[log["is_click"] == 1, "action"] = "click"
    log.loc[log["long_view"] == 1, "action"] = "long_view"
    return log.rename(columns={"is_click": "click", "label": "like"})


def _events(log: pd.DataFrame) -> pa.Table:
    hour = "h" + (log["ts"] // (DAY_US // 24) % 24).astype(str).str.zfill(2)
    events = pa.table(
        {
            "event_id": pa.array(log["event_id"], pa.string()),
            "ts": utc(log["ts"]),
            "user_id": pa.array(log["user_id"], pa.string()),
            "pin_id": pa.array(log["pin_id"], pa.string()),
            "surface": pa.array(["feed"] * len(log), pa.string()),
            "action": pa.array(log["action"], pa.string()),
            "duration_s": (log["play_time_ms"] / 1000).to_numpy(),
            **{name: log[name].to_numpy() for name in ("click", "like", "long_view")},
            "hour": pa.array(hour, pa.string()),
        }
    )
    return never_late(events)


def _user_table(log: pd.DataFrame, users: pd.DataFrame, day: int) -> pa.Table:
    ids = known_entities(log, "user", day)
    known = users.assign(user_id=users["user_id"].astype(str)).set_index("user_id").reindex(ids)
    codes = {n: _codes(known[n]) for n in (*_RANGES, *_ANONYMOUS)}
    numbers = {n: pa.array(known[n].to_numpy(), from_pandas=True) for n in _USER_NUMBERS}
    rolling = _ROLLING.columns(log, ids, day)
    return pa.table({"user_id": pa.array(ids, pa.string()), **codes, **numbers, **rolling})


def _pin_table(log: pd.DataFrame, videos: pd.DataFrame, day: int) -> pa.Table:
    ids = known_entities(log, "pin", day)
    known = videos.assign(pin_id=videos["video_id"].astype(str)).set_index("pin_id").reindex(ids)
    seen = log[(log["day"] <= day) & (log["duration_ms"] > 0)]
    length = seen.groupby("pin_id")["duration_ms"].first().reindex(ids) / 1000
    return pa.table(
        {
            "pin_id": pa.array(ids, pa.string()),
            "author_id": _codes(known["author_id"]),
            "video_type": _codes(known["video_type"]),
            "upload_type": _codes(known["upload_type"]),
            "tag": _codes(known["tag"].str.split(",").str[0]),
            "video_s": pa.array(length.to_numpy(), from_pandas=True),
        }
    )


def _codes(values: pd.Series) -> pa.Array:
    """Codes as strings: whole numbers without a fraction, missing ones null."""
    if pd.api.types.is_numeric_dtype(values):
        values = values.astype("Int64")
    return pa.array(values.astype("string"), pa.string(), from_pandas=True)
