"""Cases as folders: rows that go in, rows that must come out. A new folder is a new test.

Below `tests/golden/cases`, by what is tried: `dedup`, `merge`, `count`, `late`. The answers were
worked out by hand; nothing rewrites them.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from feature_store.config import AggregationConfig
from feature_store.contracts.base import ENTITIES
from feature_store.contracts.tables import pool_table
from feature_store.embeddings.aggregate import MergeCounts, dedup, merge
from feature_store.lake.late import split_late
from feature_store.lake.schemas import arrow_schema, unpack
from feature_store.spark.tasks import run_here
from jobs.steps.count import count_day
from tests.aggregation_fixtures import FIRST, SPEC, context, event_rows, raw_rows
from tests.architecture.sources import ROOT

_CASES = sorted((ROOT / "tests" / "golden" / "cases").glob("*/*/input.yaml"))
Rows = dict[str, Any]


@pytest.mark.parametrize("path", _CASES, ids=lambda p: f"{p.parent.parent.name}/{p.parent.name}")
def test_case(path: Path, tmp_path: Path) -> None:
    expected = yaml.safe_load((path.parent / "expected.yaml").read_text())
    given = yaml.safe_load(path.read_text())
    found = _KINDS[path.parent.parent.name](given, tmp_path)
    assert found.keys() == expected.keys()
    assert {key: _named(found[key], expected[key]) for key in expected} == expected


def _named(found: Any, wanted: Any) -> Any:
    """What was found; of the rows of a table only the columns that the case names."""
    if not isinstance(wanted, dict) or not any(isinstance(v, dict) for v in wanted.values()):
        return found
    return {
        k: {n: v for n, v in row.items() if n in wanted.get(k, row)} for k, row in found.items()
    }


def test_every_kind_has_cases() -> None:
    assert {p.parent.parent.name for p in _CASES} == set(_KINDS)


def _dedup(given: Rows, _: Path) -> Rows:
    rows = given["rows"]
    raw = raw_rows(*zip(*((r["id"], r["second"], r["vector"]) for r in rows), strict=True))
    daily = dedup(raw, 2)
    midnight = dt.datetime.fromisoformat(FIRST).replace(tzinfo=dt.UTC)
    return {
        row["entity_id"]: {
            "vector": _numbers(vector),
            "second": int((row["ts"] - midnight).total_seconds()),
            "events": row["events"],
            "intraday_cosine": row["intraday_cosine"],
        }
        for row, vector in zip(daily.to_pylist(), unpack(daily["embedding"], 2), strict=True)
    }


def _merge(given: Rows, _: Path) -> Rows:
    config = AggregationConfig(**given["config"])
    pool = arrow_schema(pool_table("ctr", "user")).empty_table()
    counts = MergeCounts()
    for ds, seen in given["days"].items():
        vectors = np.array(list(seen.values()), np.float32).reshape(-1, 2)
        daily = dedup(raw_rows(list(seen), [0] * len(seen), vectors, ds=ds), 2)
        pool, counts = merge(pool, daily, ds, config, 2)
    rows = {
        row["entity_id"]: {
            "vector": _numbers(vector),
            "last_active": row["last_active"],
            "updates": row["updates"],
        }
        for row, vector in zip(pool.to_pylist(), unpack(pool["embedding"], 2), strict=True)
    }
    names = ("updated", "new", "carried", "pruned")
    return {"pool": rows, "counts": {n: getattr(counts, n) for n in names}}


def _count(given: Rows, root: Path) -> Rows:
    lake = context(root, FIRST).lake
    for ds, events in given["days"].items():
        ctx = context(root, ds, None)
        lake.overwrite(SPEC.events_table(), ds, _events(events, ds))
        count_day(ctx, run_here)
    last = max(given["days"])
    tables = {e: lake.read(SPEC.counts_table(e), last).to_pylist() for e in ENTITIES}
    return {e: {row["entity_id"]: row for row in rows} for e, rows in tables.items()}


def _late(given: Rows, _: Path) -> Rows:
    rows = given["rows"]
    events = pa.concat_tables([_events([{"event": r["event"]}], r["day"]) for r in rows])
    accepted = pa.array(given.get("accepted", []), pa.string())
    delivery = split_late(events, given["delivered"], lambda ds: ds in given["open"], accepted)
    refused = delivery.refused.select(["event_id", "reason"]).to_pylist()
    return {
        "on_time": delivery.on_time["event_id"].to_pylist(),
        "late": delivery.late["event_id"].to_pylist(),
        "refused": {r["event_id"]: r["reason"] for r in refused},
        "reopened": list(delivery.reopened),
    }


def _events(rows: list[Rows], ds: str) -> pa.Table:
    """Events of a day; what a row does not say is a plain impression of somebody."""
    n = len(rows)
    vectors = np.zeros((n, 2), np.float32)
    users = raw_rows([r.get("user", "u") for r in rows], list(range(n)), vectors, ds=ds)
    pins = raw_rows([r.get("pin", "p") for r in rows], list(range(n)), vectors, ds=ds)
    events = event_rows(users, pins)
    for name in ("click", "long_view"):
        at = events.schema.get_field_index(name)
        values = pa.array([r.get(name, 0) for r in rows], events.schema.field(at).type)
        events = events.set_column(at, events.schema.field(at), values)
    if rows and "event" in rows[0]:
        at = events.schema.get_field_index("event_id")
        ids = pa.array([r["event"] for r in rows], pa.string())
        events = events.set_column(at, events.schema.field(at), ids)
    return events


def _numbers(vector: np.ndarray) -> list[float]:
    """Float32 as a person writes it."""
    return [round(float(x), 6) for x in vector]


_KINDS: dict[str, Callable[[Rows, Path], Rows]] = {
    "dedup": _dedup,
    "merge": _merge,
    "count": _count,
    "late": _late,
}
