"""A shop of thirty members: a data set of its own, on which a day takes a second or two.

Members have sequences of what they looked at (ids of Pins), and each day brings some rows late, so
that every kind of table has rows. Five days are published; a sixth is delivered and not yet run.
"""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.config import LayoutConfig, RetentionConfig
from feature_store.contracts.base import days_between, shift_day
from jobs.recipes import Recipe
from models.derm.config import DermConfig
from models.nn.config import DhenConfig, SequenceConfig
from models.training.config import TrainingConfig

HISTORY = "2025-06-01"
DAYS = days_between("2025-06-02", "2025-06-06")
NEXT = shift_day(DAYS[-1], 1)


@dataclasses.dataclass(frozen=True)
class Size:
    """Of a shop: its members, its offers, and events of a day."""

    members: int = 30
    offers: int = 12
    rows: int = 150


DECLARATION = """
name = "little"
first_day = "2025-06-01"
history_days = 1
daily_rows = [1, 5000]

[guards]
min_effective_rank = 1.01

[events]
path = "events/{ds}.parquet"
event_id = "id"
user_id = "member"
pin_id = "offer"
ts = "time"

[users]
path = "members/{ds}.parquet"
id = "member"

[pins]
path = "offers.parquet"
id = "offer"

[[labels]]
name = "clicked"
upstream = "ctr"
role = "primary"
meaning = "clicked"

[[features]]
name = "town"
scope = "user"
kind = "categorical"
meaning = "town"

[[features]]
name = "looked_at"
scope = "user"
kind = "sequence"
meaning = "offers that were looked at before the day"
max_len = 5
ids_of = "pin"

[[features]]
name = "price"
scope = "pin"
kind = "numeric"
meaning = "price"
"""


def recipe() -> Recipe:
    """Small widths, few buckets, and a retention that has something to drop after five days."""
    return Recipe(
        name="little",
        model=DermConfig(
            tower=DhenConfig(token_dim=8, num_tokens=2, layers=(("mlp",),)),
            sequence=SequenceConfig(max_len=5, num_layers=1, latest=2),
        ),
        training=TrainingConfig(batch_rows=64, checkpoint_steps=1),
        layout=LayoutConfig(user_buckets=2, pin_buckets=2),
        retention=RetentionConfig(
            daily_pools=3, weekly_pools=0, raw_days=3, daily_days=3, releases=2
        ),
    )


def wider() -> Recipe:
    """The same with other bucket counts: what `derm rebucket` is for."""
    return dataclasses.replace(recipe(), layout=LayoutConfig(user_buckets=4, pin_buckets=3))


def deliver(
    folder: Path,
    days: Sequence[str] = (HISTORY, *DAYS, NEXT),
    size: Size = Size(),
) -> Path:
    """Write the shop's files for every day; the path of the declaration."""
    random = np.random.default_rng(7)
    for name in ("events", "members"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    looked: list[list[str]] = [[] for _ in range(size.members)]
    for ds in days:
        members = [f"member-{i:03d}" for i in range(size.members)]
        towns = [("Oslo", "Bergen", "Bodø")[i % 3] for i in range(size.members)]
        seen = pa.array(looked, pa.list_(pa.string()))
        table = pa.table({"member": members, "town": towns, "looked_at": seen})
        pq.write_table(table, folder / "members" / f"{ds}.parquet")
        events = _events(ds, size, random)
        events.to_parquet(folder / "events" / f"{ds}.parquet")
        for member, offer in zip(events["member"], events["offer"], strict=True):
            number = int(member.removeprefix("member-"))
            looked[number] = [*looked[number], offer][-5:]
    offers = {
        "offer": [f"offer-{i:03d}" for i in range(size.offers)],
        "price": np.arange(size.offers) + 0.5,
    }
    pd.DataFrame(offers).to_parquet(folder / "offers.parquet")
    path = folder / "little.toml"
    path.write_text(DECLARATION)
    return path


def _events(ds: str, size: Size, random: np.random.Generator) -> pd.DataFrame:
    start = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
    # A third of the members stays away, so that every pool carries somebody over.
    some = 2 * size.members // 3
    who = random.choice(size.members, some, replace=False)[random.integers(0, some, size.rows)]
    what = random.integers(0, size.offers, size.rows)
    clicked = random.random(size.rows) < np.where(who % 4 == what % 4, 0.7, 0.2)
    seconds = random.integers(0, 86_400, size.rows)
    # Some come a day late: their day is validated by then, and they are put aside.
    seconds[:3] -= 86_400 if ds > HISTORY else 0
    times = pd.Series(start + pd.to_timedelta(seconds, unit="s"))
    return pd.DataFrame(
        {
            "id": [f"{ds}/{i}" for i in range(size.rows)],
            "member": [f"member-{i:03d}" for i in who],
            "offer": [f"offer-{i:03d}" for i in what],
            "time": times.astype("datetime64[us, UTC]"),
            "clicked": clicked.astype(np.int8),
        }
    )
