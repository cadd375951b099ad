"""`derm train` and `derm infer` on a tiny lake: the contract of both steps."""

import numpy as np
import pytest

from feature_store.buckets import bucket_of
from feature_store.contracts.tables import raw_table
from feature_store.schemas import unpack
from tests.model_fixtures.world import FIRST, World, next_day

SECOND = next_day(FIRST)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "home")
    world.add_day(FIRST)
    world.add_day(SECOND)
    return world


def test_two_days_end_to_end(world):
    first, second = world.train(FIRST), world.train(SECOND)
    (users, pins) = world.infer(SECOND).outputs
    events = world.lake.read(world.spec.events_table(), SECOND)
    assert users.rows == pins.rows == len(events)
    assert first.metrics["auc"] is not None
    assert second.metrics["auc"] is not None
    table = raw_table("ctr", "user")
    properties = world.lake.properties(table.name)
    assert properties == {"dtype": "float32", "dim": "64", "buckets": "3"}
    seen = []
    for bucket in range(3):
        rows = world.lake.read(table, SECOND, bucket=bucket)
        assert set(bucket_of(rows.column("entity_id"), 3)) <= {bucket}
        keys = list(zip(*(rows.column(c).to_pylist() for c in ("entity_id", "ts")), strict=True))
        assert keys == sorted(keys)
        vectors = unpack(rows.column("embedding"), 64)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        seen += rows.column("event_id").to_pylist()
    assert sorted(seen) == sorted(events.column("event_id").to_pylist())
