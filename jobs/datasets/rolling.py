"""Features that look back over an event log: what users engaged with before a day.

A log is a data frame ordered by time, with columns day (days since 1970-01-01), user_id, pin_id,
action and one 0/1 column per label. Only rows of earlier days are ever used.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_store.contracts.datasets import Feature

Scope = Literal["user", "pin"]

_STRINGS = pa.list_(pa.field("element", pa.string(), nullable=False))
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """What a user has engaged with lately.

    Attributes:
        label: column of the log; the rows where it is 1 make up the sequences.
        days: length of the window.
    """

    label: str
    days: int
    max_len: int = 50

    def features(self) -> tuple[Feature, ...]:
        """The features that `columns` fills."""
        sequences = {
            "engaged_pins": f"Pins with {self.label} in the {self.days} days before the day",
            "engaged_actions": "the action on each of engaged_pins",
        }
        return tuple(
            Feature(
                name=name,
                scope="user",
                kind="sequence",
                meaning=meaning,
                cardinality=32_768 if name == "engaged_pins" else 32,
                max_len=self.max_len,
                ids_of="pin" if name == "engaged_pins" else None,
            )
            for name, meaning in sequences.items()
        )

    def columns(self, log: pd.DataFrame, ids: pd.Series, day: int) -> dict[str, pa.Array]:
        """The features of the users `ids` as of the start of a day."""
        past = log[(log["day"] < day) & (log["day"] >= day - self.days)]
        engaged = past[past[self.label] == 1]
        newest = engaged.groupby("user_id", sort=False).tail(self.max_len)
        # Order by the place of the user in `ids`; a stable sort keeps time order within.
        place = pd.Index(ids).get_indexer(newest["user_id"])
        order = np.argsort(place, kind="stable")
        lengths = np.bincount(place, minlength=len(ids))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        ordered = newest.iloc[order]
        return {
            "engaged_pins": _lists(offsets, ordered["pin_id"]),
            "engaged_actions": _lists(offsets, ordered["action"]),
        }


def known_entities(log: pd.DataFrame, scope: Scope, day: int) -> pd.Series:
    """Ids seen up to and including a day, sorted."""
    seen = log.loc[log["day"] <= day, f"{scope}_id"]
    return pd.Series(np.sort(seen.unique()))


def utc(microseconds: pd.Series) -> pa.Array:
    """Timestamps from microseconds since 1970-01-01."""
    return pa.array(microseconds.to_numpy(), pa.timestamp("us", tz="UTC"))


def split_words(texts: pd.Series, separator: str, longest: int) -> pa.Array:
    """Lists of the words of each text; a null text is an empty list."""
    words = texts.fillna("").str.split(separator)
    return pa.array([[w for w in row if w][:longest] for row in words], _STRINGS)


def _lists(offsets: pa.Array, values: pd.Series) -> pa.Array:
    flat = pa.array(values.to_numpy(object), pa.string())
    return pa.ListArray.from_arrays(offsets, flat, type=_STRINGS)
