"""Windowed counts against counting one event after the other."""

import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.config import LayoutConfig
from feature_store.contracts import datasets
from feature_store.contracts.base import ENTITIES, Entity, shift_day
from feature_store.contracts.datasets import WINDOWS, DatasetSpec, Feature, Label
from feature_store.contracts.errors import ContractViolation
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake, stage_file
from feature_store.lake.schemas import arrow_schema
from feature_store.reading.counts import Counting, EntityCounts, largest_counts
from feature_store.spark import counting
from feature_store.spark.counting import slide
from feature_store.spark.tasks import run_here
from jobs.engine.context import RunContext
from jobs.engine.manifests import ManifestStore
from jobs.recipes import Recipe
from jobs.settings import Home, Settings
from jobs.steps import count
from jobs.steps.count import count_day

FIRST = "2025-03-01"
LAST = 95  # beyond the longest window
SPEC = DatasetSpec(
    name="synthetic",
    description="tests only",
    surfaces=("home",),
    actions=("shown", "conversion"),
    labels=(
        Label(name="click", upstream="ctr", role="primary", meaning="clicked"),
        Label(name="sale", upstream="cvr", role="primary", meaning="sold"),
    ),
    features=(
        Feature(name="age", scope="user", kind="categorical", meaning="age"),
        Feature(name="topic", scope="pin", kind="categorical", meaning="topic"),
    ),
)

# Day, user, Pin, click (None: a conversion that arrives late), sale (None: it does not apply).
Event = tuple[int, str, str, int | None, int | None]
EVENTS = st.lists(
    st.tuples(
        # Days around the ends of the windows, and many without an event.
        st.sampled_from([0, 1, 2, 5, 6, 7, 8, 20, 27, 28, 29, 60, 89, 90, 91, LAST]),
        st.sampled_from("abc"),
        st.sampled_from("xy"),
        st.sampled_from([0, 1, None]),
        st.sampled_from([0, 1, None]),
    ),
    max_size=40,
)


def context(root: Path, ds: str) -> RunContext:
    return RunContext(
        settings=Settings(home=root),
        home=Home(dataset="synthetic", recipe="toy", first_ds=FIRST, start_ds=FIRST),
        recipe=Recipe(name="toy", layout=LayoutConfig(user_buckets=2, pin_buckets=1)),
        spec=SPEC,
        lake=Lake(root / "lake"),
        manifests=ManifestStore(root / "manifests"),
        ds=ds,
        upstream=None,
        log=logging.getLogger("test"),
    )


def write_day(root: Path, day: int, events: Sequence[Event]) -> str:
    """Commit the events of a day; its date."""
    ds, mine = shift_day(FIRST, day), [e for e in events if e[0] == day]
    midnight = dt.datetime.fromisoformat(ds).replace(tzinfo=dt.UTC)
    rows = [
        {
            "event_id": f"e{i}",
            "ts": midnight - dt.timedelta(days=click is None),
            "arrived_at": midnight if click is None else None,
            "impression_id": "e" if click is None else None,
            "user_id": user,
            "pin_id": pin,
            "surface": "home",
            "action": "conversion" if click is None else "shown",
            "duration_s": None,
            "click": click,
            "sale": sale,
        }
        for i, (_, user, pin, click, sale) in enumerate(mine)
    ]
    table = SPEC.events_table()
    context(root, ds).lake.overwrite(table, ds, pa.Table.from_pylist(rows, arrow_schema(table)))
    return ds


def live(root: Path, events: Sequence[Event], last: int = LAST) -> None:
    """Count every day up to the last one."""
    for day in range(last + 1):
        count_day(context(root, write_day(root, day, events)), run_here)


def brute_force(
    events: Sequence[Event], entity: Entity, name: str, day: int, window: int
) -> tuple[int, int, int]:
    """Impressions, clicks and sales of an entity in the window that ends with a day."""
    inside = [e for e in events if day - window < e[0] <= day]
    mine = [e for e in inside if name in ("", e[1 if entity == "user" else 2])]
    return (
        sum(e[3] is not None for e in mine),
        sum(e[3] == 1 for e in mine),
        sum(e[4] == 1 for e in mine),
    )


class Known:
    """Rows of some ids, in the order given."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.hashes = stable_hash(pa.array(ids, pa.string()))

    def __len__(self) -> int:
        return len(self.hashes)

    def rows_of(self, hashes: np.ndarray) -> np.ndarray:
        same = hashes[:, None] == self.hashes[None, :]
        return np.where(same.any(axis=1), same.argmax(axis=1), len(self))


def windows_of(rows: pa.Table) -> dict[str, list[int]]:
    """A table of counts as id -> every number of its row."""
    return {row.pop("entity_id"): list(row.values()) for row in rows.to_pylist()}


def expected(
    events: Sequence[Event], entity: Entity, day: int, windows: Sequence[int]
) -> dict[str, list[int]]:
    """The same, counted one event after the other."""
    found = {
        name: [n for w in windows for n in brute_force(events, entity, name, day, w)]
        for name in ("abc" if entity == "user" else "xy")
    }
    return {name: numbers for name, numbers in found.items() if any(numbers)}


@settings(max_examples=30, deadline=None)
@given(events=EVENTS)
def test_every_window_of_every_day_is_a_plain_count(events: list[Event]) -> None:
    """The arithmetic, beyond the end of the longest window."""
    past = (pa.array([], pa.string()), np.zeros((0, len(WINDOWS), 3), np.int32))
    days: list[tuple[pa.Array, np.ndarray]] = []
    for day in range(LAST + 1):
        today = [
            (pa.array([e[1]]), np.array([[e[3] is not None, e[3] == 1, e[4] == 1]], np.int32))
            for e in events
            if e[0] == day
        ]
        nothing = (pa.array([], pa.string()), np.zeros((0, 1, 3), np.int32))
        leaving = [days[day - w] if day >= w else nothing for w in WINDOWS[1:]]
        past = slide(today, past, leaving)
        days.append((past[0], past[1][:, :1]))
        found = dict(zip(past[0].to_pylist(), [w.ravel().tolist() for w in past[1]], strict=True))
        assert found == expected(events, "user", day, WINDOWS)
        assert list(found) == sorted(found)


@settings(max_examples=4, deadline=None)
@given(events=EVENTS)
def test_the_table_of_every_day_is_a_plain_count(events: list[Event]) -> None:
    """The whole way through events, scratch files and tables; short windows make the days few."""
    windows = (1, 2, 4, 7)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (datasets, counting, count):
            patch.setattr(module, "WINDOWS", windows)
        root, last = Path(folder), 9
        near = [(e[0] % (last + 1), *e[1:]) for e in events]
        live(root, near, last)
        lake = context(root, FIRST).lake
        for day in range(last + 1):
            for entity in ENTITIES:
                rows = lake.read(SPEC.counts_table(entity), shift_day(FIRST, day))
                assert windows_of(rows) == expected(near, entity, day, windows), (entity, day)


@settings(max_examples=8, deadline=None)
@given(events=EVENTS, day=st.sampled_from([0, 1, 2, 7, 8]))
def test_features_are_smoothed_counts_of_earlier_days(events: list[Event], day: int) -> None:
    smoothed, ids = Counting(smoothing=20.0, first_ds=FIRST), ["c", "a", "nobody"]
    with TemporaryDirectory() as folder:
        live(Path(folder), events, last=day)
        lake, ds = Lake(Path(folder) / "lake"), shift_day(FIRST, day)
        features = EntityCounts(lake, SPEC, "user", ds, smoothed, Known(ids))
        found = features.take(np.arange(len(ids) + 1))
    assert list(found) == [f.name for f in SPEC.counting_features("user")]
    assert all(np.isnan(values[-1]) for values in found.values())
    for window in WINDOWS:
        shown, *positives = brute_force(events, "user", "", day - 1, window)
        for row, name in enumerate(ids):
            mine, *hits = brute_force(events, "user", name, day - 1, window)
            assert found[f"user_impressions_{window}d"][row] == mine
            for label, hit, total in zip(("click", "sale"), hits, positives, strict=True):
                assert found[f"user_{label}_count_{window}d"][row] == hit
                rate = found[f"user_{label}_rate_{window}d"][row]
                if shown:
                    prior = total / shown
                    assert rate == pytest.approx((hit + 20 * prior) / (mine + 20), rel=1e-5)
                else:
                    assert np.isnan(rate)


def test_what_counts_may_become(tmp_path: Path) -> None:
    """The largest day times the length of the window; nothing for what never happened."""
    events: list[Event] = [(0, "a", "x", 0, 0)] * 3 + [(1, "a", "y", 1, None)] * 2
    live(tmp_path, events, last=2)
    days = [shift_day(FIRST, d) for d in range(3)]
    lake, smoothed = Lake(tmp_path / "lake"), Counting(smoothing=1.0, first_ds=FIRST)
    found = largest_counts(lake, SPEC, days, smoothed)
    assert found["user_impressions_1d"] == 3
    assert found["user_impressions_90d"] == 270
    assert found["pin_click_count_28d"] == 56
    assert (found["user_click_rate_7d"], found["user_sale_rate_7d"]) == (1, 0)
    assert set(largest_counts(lake, SPEC, days[:1], smoothed).values()) == {0}


def test_a_day_that_changes_takes_later_records_with_it(tmp_path: Path) -> None:
    events: list[Event] = [(day, "a", "x", 1, 0) for day in range(4)]
    live(tmp_path, events, last=3)
    digests = digests_of(tmp_path)
    recorded = tmp_path / "manifests" / shift_day(FIRST, 3) / "count.json"
    recorded.parent.mkdir(parents=True)
    recorded.write_text("{}")
    count_day(context(tmp_path, shift_day(FIRST, 1)), run_here)
    assert recorded.exists()
    assert digests_of(tmp_path) == digests
    count_day(context(tmp_path, write_day(tmp_path, 1, [*events, (1, "b", "x", 0, 0)])), run_here)
    assert not recorded.exists()


def test_windows_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    """A day that leaves a window with more than it came with."""
    events: list[Event] = [(0, "a", "x", 1, 0)]
    live(tmp_path, events, last=6)
    counts, day = SPEC.counts_table("user"), FIRST
    lake = context(tmp_path, day).lake
    rows = lake.read(counts, day)
    more = rows.set_column(1, rows.schema.field(1), pa.array([2], pa.int32()))
    (bucket,) = (b for b, files in lake.bucket_files(counts.name, day).items() if _rows(files))
    lake.replace_bucket(counts, day, stage_file(lake.root, counts, day, more, bucket=bucket))
    with pytest.raises(ContractViolation, match="fewer events than none"):
        count_day(context(tmp_path, write_day(tmp_path, 7, [])), run_here)


def _rows(files: Sequence[str]) -> int:
    return sum(pq.read_metadata(f).num_rows for f in files)


def digests_of(root: Path) -> list[str]:
    lake = Lake(root / "lake")
    names = [SPEC.counts_table(e).name for e in ENTITIES]
    return [lake.artifact(name, ds).digest for name in names for ds in lake.days(name)]
