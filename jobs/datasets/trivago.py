"""trivago RecSys Challenge 2019 sample: hotel lists, exploded to one event per hotel shown.

Source: Adamczak et al., ACM TIST 12(1), 2020. Mapping and weaknesses are in docs/datasets.md.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_store.contracts.datasets import DatasetSpec, Feature, Label
from feature_store.lake.filing import never_late
from jobs.datasets.base import DayTables
from jobs.datasets.public_files import Frames, PublicFiles
from jobs.datasets.rolling import DAY_US, Rolling, Scope, known_entities, utc

_ROLLING = Rolling(label="engaged", days=7)
_COLUMNS = {
    "timestamp": "integer",
    "step": "integer",
    **dict.fromkeys(
        (
            *("user_id", "session_id", "action_type", "reference", "platform", "city", "device"),
            *("impressions", "prices"),
        ),
        "string",
    ),
}
_CLICKOUT = "clickout item"

SPEC = DatasetSpec(
    name="trivago",
    description="trivago hotel lists with item interactions and click-outs",
    surfaces=("search",),
    actions=("impression", "engaged", "clickout"),
    labels=(
        Label(
            name="engaged",
            upstream="ctr",
            role="primary",
            meaning="the hotel was interacted with earlier in the session",
        ),
        Label(name="clickout", upstream="cvr", role="primary", meaning="left to book the hotel"),
        Label(
            name="engaged",
            upstream="cvr",
            role="auxiliary",
            meaning="the hotel was interacted with earlier in the session",
        ),
    ),
    features=(
        Feature(name="platform", scope="user", kind="categorical", meaning="country site"),
        *_ROLLING.features(),
        Feature(name="city", scope="pin", kind="categorical", meaning="city it was searched in",
                cardinality=8192),
        Feature(name="device", scope="context", kind="categorical", meaning="kind of device"),
        Feature(name="position", scope="context", kind="numeric", meaning="place in the list"),
        Feature(name="price", scope="context", kind="numeric", meaning="price shown"),
        Feature(name="price_ratio", scope="context", kind="numeric",
                meaning="price over the mean price of the list"),
    ),
    daily_rows=(50_000, 500_000),
    label_rates={"engaged": (0.01, 0.1), "clickout": (0.02, 0.1)},
)  # fmt: skip


def open_folder(folder: Path) -> PublicFiles:
    """The adapter of the data set's file. It holds two days, so no history is set aside."""
    return PublicFiles(
        folder=folder,
        spec=SPEC,
        first="2018-11-07",
        last="2018-11-08",
        history_days=0,
        columns={"events": _COLUMNS},
        cut=_cut,
    )


def _cut(files: Frames, day: int) -> DayTables:
    log = _log(files["events"])
    return DayTables(
        events=_events(log[log["day"] == day]),
        users=_table(log, "user", ("platform",), day),
        pins=_table(log, "pin", ("city",), day),
    )


def _log(raw: pd.DataFrame) -> pd.DataFrame:
    """One row per hotel of every list that was shown, in time order."""
    lists = raw[raw["action_type"] == _CLICKOUT].copy()
    lists["pin_id"] = lists["impressions"].str.split("|")
    lists["price"] = lists["prices"].str.split("|")
    log = lists.explode(["pin_id", "price"], ignore_index=True)
    log["price"] = pd.to_numeric(log["price"])
    by_list = log.groupby(["session_id", "step"], sort=False)
    log["position"] = by_list.cumcount()
    log["price_ratio"] = log["price"] / by_list["price"].transform("mean")
    log["event_id"] = (
        log["session_id"]
        + "-"
        + log["step"].astype(str).str.zfill(4)
        + "-"
        + log["position"].astype(str).str.zfill(2)
    )
    log["ts"] = log["timestamp"] * 1_000_000
    log["day"] = log["ts"] // DAY_US
    log["clickout"] = (log["pin_id"] == log["reference"]).astype("int8")
    log["engaged"] = _engaged(raw, log)
    log["action"] = np.select(
        [log["clickout"] == 1, log["engaged"] == 1], ["clickout", "engaged"], "impression"
    )
    return log.sort_values(["ts", "event_id"], kind="stable", ignore_index=True)


def _engaged(raw: pd.DataFrame, log: pd.DataFrame) -> pd.Series:
    """Whether an interaction with the hotel came earlier in the session, 0 or 1."""
    touched = raw[raw["action_type"].str.startswith("interaction item")]
    keys = ["session_id", "pin_id"]
    first = touched.rename(columns={"reference": "pin_id"}).groupby(keys)["step"].min()
    since = log[keys].join(first, on=keys)["step"]
    return (since < log["step"]).astype("int8")


def _events(log: pd.DataFrame) -> pa.Table:
    strings = ("event_id", "user_id", "pin_id", "action", "device")
    events = pa.table(
        {
            **{name: pa.array(log[name], pa.string()) for name in strings},
            "ts": utc(log["ts"]),
            "surface": pa.array(["search"] * len(log), pa.string()),
            "duration_s": pa.nulls(len(log), pa.float32()),
            "engaged": log["engaged"].to_numpy(),
            "clickout": log["clickout"].to_numpy(),
            "position": log["position"].to_numpy(),
            "price": log["price"].to_numpy(),
            "price_ratio": pa.array(log["price_ratio"].to_numpy(), from_pandas=True),
        }
    )
    return never_late(events)


def _table(log: pd.DataFrame, scope: Scope, properties: tuple[str, ...], day: int) -> pa.Table:
    """A snapshot whose properties are those of the entity's first event up to the day."""
    ids = known_entities(log, scope, day)
    first = log[log["day"] <= day].groupby(f"{scope}_id")[list(properties)].first().reindex(ids)
    return pa.table(
        {
            f"{scope}_id": pa.array(ids, pa.string()),
            **{name: pa.array(first[name], pa.string(), from_pandas=True) for name in properties},
            **(_ROLLING.columns(log, ids, day) if scope == "user" else {}),
        }
    )
