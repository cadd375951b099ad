"""As of which day each feature of a late label is: that of its impression, never of its arrival."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.contracts.base import ENTITIES, Entity, shift_day
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.tables import Table
from feature_store.lake.lake import stage_file
from feature_store.reading.examples import DayExamples, Order
from tests.model_fixtures.world import FIRST, World, late_labels

DAYS = tuple(shift_day(FIRST, d) for d in range(4))
BEFORE, SHOWN, BETWEEN, ARRIVED = DAYS
TABLES = ("users", "pins", "counts/user", "counts/pin")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Four days; on the last one arrive labels of impressions of the second."""
    world = World(tmp_path)
    for ds in DAYS:
        world.add_day(ds)
    table = world.spec.events_table()
    told = late_labels(world.lake.read(table, SHOWN), ARRIVED)
    world.lake.overwrite(table, ARRIVED, pa.concat_tables([world.lake.read(table, ARRIVED), told]))
    return world


def late_rows(world: World) -> dict[str, npt.NDArray]:
    """What the model of conversions reads of the labels of SHOWN that came on ARRIVED."""
    counting = world.context(ARRIVED, "cvr").counting
    examples = DayExamples(world.lake, world.spec, ARRIVED, "cvr", counting)
    (batch,) = examples.batches(Order(batch_rows=10_000, distinct=False))
    start = np.datetime64(SHOWN, "s").astype(float)
    mine = batch["late"] & (batch["ts"] >= start) & (batch["ts"] < start + 86_400)
    assert mine.sum() > 5
    assert (batch["label:checkout"][mine] == 1).all()
    return {name: values[mine] for name, values in batch.items()}


def test_each_feature_is_as_of_the_impression(world: World) -> None:
    known = late_rows(world)
    depends: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name in TABLES:
        for ds in DAYS:
            undo = spoil(world, name, ds)
            for feature, values in late_rows(world).items():
                if not np.array_equal(values, known[feature], equal_nan=values.dtype.kind == "f"):
                    depends[feature].add((name, ds))
            undo()
    expected: dict[str, set[tuple[str, str]]] = {}
    for entity in ENTITIES:
        for feature in world.spec.features_of(entity):
            expected[feature.name] = {(f"{entity}s", SHOWN)}
        for feature in world.spec.counting_features(entity):
            expected[feature.name] = {(f"counts/{entity}", BEFORE)}
            # Everybody's rate is that of the day on which the row is read: a date, if it were not.
            if feature.group == "rates":
                expected[feature.name].add((f"counts/{entity}", BETWEEN))
    assert depends == expected
    context = {f.name for f in world.spec.features_of("context")} | {"ts", "surface"}
    assert context.isdisjoint(depends)


def test_what_they_carry_is_what_their_impressions_carry(world: World) -> None:
    counting = world.context(SHOWN, "cvr").counting
    examples = DayExamples(world.lake, world.spec, SHOWN, "cvr", counting)
    (shown,) = examples.batches(Order(batch_rows=10_000, rows="impressions", distinct=False))
    late = late_rows(world)
    at = np.searchsorted(shown["ts"], late["ts"])
    assert not shown["late"].any()
    inputs = set(late) - {"late"} - {n for n in late if n.startswith("label:")}
    assert {"seen_pins", "topic", "pin_checkout_count_7d", "query", "key:user"} <= inputs
    for name in {n for n in inputs if "_rate_" not in n or n == "user_rate"}:
        np.testing.assert_array_equal(late[name], shown[name][at], err_msg=name)


def test_labels_as_they_were_known_in_the_end(world: World) -> None:
    counting = world.context(SHOWN, "cvr").counting
    order = Order(batch_rows=64, rows="impressions")

    def labels(known_by: str) -> dict[float, float]:
        examples = DayExamples(world.lake, world.spec, SHOWN, "cvr", counting, known_by=known_by)
        batches = list(examples.batches(order))
        ts, bought = (np.concatenate([b[n] for b in batches]) for n in ("ts", "label:checkout"))
        return dict(zip(ts.tolist(), bought.tolist(), strict=True))

    first, between, last = (labels(ds) for ds in ("", BETWEEN, ARRIVED))
    told = set(late_rows(world)["ts"].tolist())
    table = world.spec.events_table()
    heard = world.lake.read(table, BETWEEN).filter(pc.is_valid(pc.field("arrived_at")))
    sooner = set((heard["ts"].cast(pa.int64()).to_numpy() / 1e6).tolist())
    assert {ts for ts in first if first[ts] != between[ts]} == sooner
    assert {ts for ts in first if first[ts] != last[ts]} == sooner | told
    assert all(first[ts] == 0 and last[ts] == 1 for ts in sooner | told)


def test_an_upstream_reads_the_rows_on_which_it_knows_a_label(world: World) -> None:
    counting = world.context(ARRIVED).counting
    events = world.lake.read(world.spec.events_table(), ARRIVED)
    late = len(events["arrived_at"].drop_null())
    for upstream, read in (("ctr", 0), ("cvr", late)):
        examples = DayExamples(world.lake, world.spec, ARRIVED, upstream, counting)
        batches = list(examples.batches(Order(batch_rows=64)))
        assert sum(len(b["ts"]) for b in batches) == len(events) - late + read
        assert sum(b["late"].sum() for b in batches) == read


def test_a_day_that_the_lake_does_not_know_is_named(world: World) -> None:
    table = world.spec.users_table()
    world.lake.open(table.name).delete(f"ds = '{SHOWN}'")
    with pytest.raises(MissingInput, match=f"table users has no day {SHOWN}"):
        late_rows(world)


def spoil(world: World, name: str, ds: str):
    """Give every entity of a day the values of another one, or other counts; how to undo it."""
    if name.startswith("counts/"):
        return spoil_counts(world, "user" if name.endswith("user") else "pin", ds)
    table = world.spec.users_table() if name == "users" else world.spec.pins_table()
    rows = world.lake.read(table, ds)
    order = [*range(1, len(rows)), 0]
    columns = [rows[c] if c in table.key else rows[c].take(order) for c in rows.column_names]
    world.lake.overwrite(table, ds, pa.table(columns, schema=rows.schema))
    return lambda: world.lake.overwrite(table, ds, rows)


def spoil_counts(world: World, entity: Entity, ds: str):
    """Other counts for every entity of a day; how to undo it."""
    table = world.spec.counts_table(entity)
    buckets = range(len(world.lake.bucket_files(table.name, ds)))
    before = {b: world.lake.read(table, ds, bucket=b) for b in buckets}
    for bucket, rows in before.items():
        counts = [(c.to_numpy() * 3 + 1).astype(np.int32) for c in rows.columns[1:]]
        put_bucket(world, table, ds, bucket, pa.table([rows[0], *counts], schema=rows.schema))
    return lambda: [put_bucket(world, table, ds, b, rows) for b, rows in before.items()]


def put_bucket(world: World, table: Table, ds: str, bucket: int, rows: pa.Table) -> None:
    """Replace a bucket."""
    staged = stage_file(world.lake.root, table, ds, rows, bucket=bucket)
    world.lake.replace_bucket(table, ds, staged)
