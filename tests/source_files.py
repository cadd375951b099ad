"""Small files in the formats of the built-in data sets, made up, at the density of the real ones.

Only what the adapters read is there; values have something to learn in them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

DAY_S = 86_400


def midnight(ds: str) -> int:
    """Seconds since 1970-01-01 at the start of a day."""
    return int(pd.Timestamp(ds, tz="UTC").timestamp())


def movielens(folder: Path, days: dict[str, int], *, users: int = 20) -> None:
    """Ratings of so many users a day; most users come once, as in the real set."""
    random = np.random.default_rng(0)
    rows = []
    for number, (ds, count) in enumerate(days.items()):
        who = 1 + number * users // 2 + random.integers(0, users, count)
        rows.append(
            pd.DataFrame(
                {
                    "user_id": who,
                    "item_id": random.integers(1, 400, count),
                    "timestamp": midnight(ds) + np.sort(random.integers(0, DAY_S, count)),
                }
            )
        )
    ratings = pd.concat(rows).drop_duplicates(["user_id", "item_id"])
    likes = (ratings["user_id"] % 4 == ratings["item_id"] % 4).to_numpy()
    ratings["rating"] = np.clip(random.integers(1, 5, len(ratings)) + 2 * likes, 1, 5)
    ratings.to_parquet(folder / "ratings.parquet")
    everybody = np.arange(1, 1000)
    pd.DataFrame(
        {
            "user_id": everybody,
            "age": 20 + everybody % 50,
            "gender": np.where(everybody % 2, "M", "F"),
            "occupation": np.where(everybody % 3, "student", "writer"),
            "zip_code": (10_000 + everybody).astype(str),
        }
    ).to_parquet(folder / "users.parquet")
    items = np.arange(1, 401)
    years = pd.Series(1930 + items % 68).astype(str).where(items % 50 > 0)
    pd.DataFrame(
        {"item_id": items, "release_year": years, "class": np.where(items % 4, "Drama War", "")}
    ).to_parquet(folder / "items.parquet")


def kuairand(folder: Path, days: dict[str, int]) -> None:
    """Videos that were liked or hated; features of 3 % of the videos, as in the real set."""
    random = np.random.default_rng(1)
    total = sum(days.values())
    starts = np.repeat([midnight(ds) for ds in days], list(days.values()))
    user, video = random.integers(0, 300, total), random.integers(0, 2000, total)
    click = random.random(total) < np.where(user % 4 == video % 4, 0.9, 0.5)
    zeros = dict.fromkeys(
        ("is_follow", "is_comment", "is_forward", "is_profile_enter", "comment_stay_time"), 0
    )
    pd.DataFrame(
        {
            "user_id": user,
            "video_id": video,
            "time_ms": (starts * 1000 + random.integers(0, DAY_S * 1000, total)),
            "play_time_ms": random.integers(0, 60_000, total),
            "duration_ms": random.integers(5_000, 90_000, total),
            "is_click": click.astype(int),
            "long_view": (click & (random.random(total) < 0.7)).astype(int),
            "label": random.integers(0, 2, total),
            **zeros,
        }
    ).to_parquet(folder / "log.parquet")
    users = np.arange(300)
    ranges = (
        *("user_active_degree", "follow_user_num_range", "fans_user_num_range"),
        *("friend_user_num_range", "register_days_range"),
    )
    numbers = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
    pd.DataFrame(
        {
            "user_id": users,
            **{name: np.where(users % 3, "few", "many") for name in ranges},
            **{f"onehot_feat{i}": (users % (i + 2)).astype(float) for i in range(12)},
            **dict.fromkeys(numbers, users % 90),
        }
    ).to_parquet(folder / "user_features.parquet")
    videos = np.arange(0, 2000, 33)
    pd.DataFrame(
        {
            "video_id": videos,
            "author_id": videos % 40,
            "video_type": "NORMAL",
            "upload_type": np.where(videos % 2, "ShortImport", "Web"),
            "tag": [f"{v % 9},{v % 5}" for v in videos],
        }
    ).to_parquet(folder / "video_features_basic_pool.parquet")


def trivago(folder: Path, days: dict[str, int]) -> None:
    """Lists of 25 hotels with one click-out each; so many lists a day."""
    random = np.random.default_rng(2)
    rows = []
    for ds, lists in days.items():
        for number in range(lists):
            hotels = random.choice(900, 25, replace=False)
            chosen = hotels[int(random.integers(0, 25))]
            common = {
                "user_id": f"u{random.integers(0, lists // 2)}",
                "session_id": f"{ds}-{number}",
                "platform": "NO" if number % 2 else "SE",
                "city": f"city {number % 7}",
                "device": "mobile" if number % 3 else "desktop",
            }
            at = midnight(ds) + int(random.integers(0, DAY_S - 60))
            listed = "|".join(map(str, hotels))
            prices = "|".join(str(40 + h % 160) for h in hotels)
            if number % 2:
                touched = str(chosen if number % 4 == 1 else hotels[0])
                rows.append(
                    {**common, "timestamp": at, "step": 1, "reference": touched,
                     "action_type": "interaction item image", "impressions": None, "prices": None}
                )  # fmt: skip
            rows.append(
                {**common, "timestamp": at + 30, "step": 2, "reference": str(chosen),
                 "action_type": "clickout item", "impressions": listed, "prices": prices}
            )  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "events.parquet")


WRITERS: dict[str, Callable[[Path, dict[str, int]], None]] = {
    "movielens": movielens,
    "kuairand": kuairand,
    "trivago": trivago,
}
