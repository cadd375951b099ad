"""The aggregation as its definition reads: a dictionary, an entity at a time, no cleverness."""

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.config import AggregationConfig

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class State:
    vector: Vector
    previous: Vector
    last_daily: str
    last_active: str
    updates: int


def last_of_day(raw: pa.Table) -> dict[str, Vector]:
    """The last embedding per entity by (ts, event_id)."""
    rows = sorted(raw.to_pylist(), key=lambda r: (r["entity_id"], r["ts"], r["event_id"]))
    return {r["entity_id"]: np.frombuffer(r["embedding"], "<f4") for r in rows}


def step(
    pool: dict[str, State], daily: dict[str, Vector], ds: str, config: AggregationConfig
) -> dict[str, State]:
    """One day of the recursion."""
    result = {}
    for key in sorted(pool.keys() | daily.keys()):
        if key in daily and key in pool:
            vector = heuristic(pool[key], daily[key], config)
            result[key] = State(vector, daily[key], ds, ds, pool[key].updates + 1)
        elif key in daily:
            result[key] = State(daily[key], daily[key], ds, ds, 1)
        else:
            result[key] = replace(pool[key])
    today = dt.date.fromisoformat(ds)
    return {
        key: state
        for key, state in result.items()
        if (today - dt.date.fromisoformat(state.last_active)).days <= config.inactive_days
    }


def heuristic(state: State, daily: Vector, config: AggregationConfig) -> Vector:
    """ACC, MA or AP for one entity, in float32."""
    if config.heuristic == "acc":
        return daily
    if config.heuristic == "ap":
        return (state.previous + daily) * np.float32(0.5)
    w = np.float32(config.w)
    return state.vector * w + daily * (np.float32(1) - w)


def as_rows(pool: dict[str, State], config: AggregationConfig) -> list[tuple[object, ...]]:
    """The pool as comparable rows, vectors as bytes: equality is equality of bits."""
    return [
        (
            key,
            s.vector.tobytes(),
            s.last_daily,
            s.last_active,
            s.updates,
            s.previous.tobytes() if config.heuristic == "ap" else None,
        )
        for key, s in sorted(pool.items())
    ]


def table_rows(table: pa.Table) -> list[tuple[object, ...]]:
    """A pool table as the same rows, in file order."""
    names = ("entity_id", "embedding", "last_daily", "last_active", "updates", "previous_daily")
    return list(zip(*(table[n].to_pylist() for n in names), strict=True))
