"""The aggregation as Spark SQL says it (window, join, zip_with) agrees with ours bit for bit."""

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from feature_store.config import AggregationConfig
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.tables import pool_table
from feature_store.embeddings.aggregate import dedup, merge
from feature_store.lake.schemas import arrow_schema
from feature_store.spark.session import spark_context
from tests.aggregation_fixtures import FIRST, random_day

pytestmark = pytest.mark.spark
DIM = 8

DAILY = """
    SELECT entity_id, max_by(vector, struct(ts, event_id)) AS vector, count(*) AS events
    FROM raw GROUP BY entity_id
"""
MERGE = """
    SELECT coalesce(p.entity_id, d.entity_id) AS entity_id,
           CASE WHEN p.entity_id IS NULL THEN d.vector
                WHEN d.entity_id IS NULL THEN p.vector
                ELSE {step} END AS vector,
           IF(d.entity_id IS NULL, p.previous, d.vector) AS previous,
           IF(d.entity_id IS NULL, p.last_active, '{ds}') AS last_active,
           coalesce(p.updates, 0) + IF(d.entity_id IS NULL, 0, 1) AS updates
    FROM pool p FULL OUTER JOIN daily d ON p.entity_id = d.entity_id
    WHERE d.entity_id IS NOT NULL OR datediff('{ds}', p.last_active) <= {inactive_days}
"""
STEP = {
    "acc": "d.vector",
    "ma": "zip_with(p.vector, d.vector, (x, y) -> x * {w} + y * (cast(1 AS float) - {w}))",
    "ap": "zip_with(p.previous, d.vector, (x, y) -> (x + y) * cast(0.5 AS float))",
}
POOL = (
    "entity_id string, vector array<float>, previous array<float>, last_active string, updates int"
)


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The SQL engine on the context that the jobs use."""
    scratch = tmp_path_factory.mktemp("spark")
    session = SparkSession(spark_context("local[2,3]", "1g", scratch))
    session.conf.set("spark.sql.shuffle.partitions", "2")
    return session


def rows(raw: pa.Table) -> list[tuple[object, ...]]:
    vectors = [list(struct.unpack(f"<{DIM}f", v)) for v in raw["embedding"].to_pylist()]
    times = raw["ts"].cast(pa.int64()).to_pylist()
    return list(
        zip(raw["entity_id"].to_pylist(), raw["event_id"].to_pylist(), times, vectors, strict=True)
    )


@pytest.mark.parametrize("heuristic", ["acc", "ma", "ap"])
def test_three_days_agree(sql: SparkSession, heuristic: str) -> None:
    config = AggregationConfig(heuristic=heuristic, w=0.8, inactive_days=1)  # type: ignore[arg-type]
    pool = arrow_schema(pool_table("ctr", "user")).empty_table()
    sql.createDataFrame([], POOL).createOrReplaceTempView("pool")
    for ds in days_between(FIRST, shift_day(FIRST, 2)):
        raw = random_day(5, ds, "user", events=150, dim=DIM)
        pool, _ = merge(pool, dedup(raw, DIM), ds, config, DIM)
        schema = "entity_id string, event_id string, ts long, vector array<float>"
        sql.createDataFrame(rows(raw), schema).createOrReplaceTempView("raw")
        sql.sql(DAILY).createOrReplaceTempView("daily")
        step = STEP[heuristic].format(w="cast(0.8 AS float)")
        merged = sql.sql(MERGE.format(step=step, ds=ds, inactive_days=1)).collect()
        sql.createDataFrame(merged, POOL).createOrReplaceTempView("pool")
        expected = [
            (r.entity_id, np.array(r.vector, "<f4").tobytes(), r.last_active, r.updates)
            for r in sorted(merged, key=lambda r: r.entity_id.encode())
        ]
        names = ("entity_id", "embedding", "last_active", "updates")
        assert list(zip(*(pool[n].to_pylist() for n in names), strict=True)) == expected
