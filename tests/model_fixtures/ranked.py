"""A tiny world with pools and a ranker that reads them; no Airflow, no Redis, no simulator."""

import dataclasses

import numpy as np
import pyarrow as pa

from feature_store.contracts.rankers import RankerDeclaration
from feature_store.contracts.tables import pool_table
from feature_store.lake.schemas import arrow_schema, pack
from feature_store.lake.staging import stage_file
from jobs.engine.runner import record, resolve_inputs
from jobs.pipelines import catalog, ranking
from jobs.steps import assemble, calibrate, evaluate, export_ranker, train_ranker
from models.rankers.config import RankingConfig
from models.training.config import TrainingConfig
from tests.model_fixtures import rankers, unified
from tests.model_fixtures.world import TOPICS, World, small_recipe

NAME = "clicks"
RUN = {s.name: m.run for s, m in zip(
    ranking.STEPS, (assemble, evaluate, train_ranker, calibrate, export_ranker), strict=True
)}  # fmt: skip


class RankedWorld(World):
    """A tiny world whose pools tell the topic of an entity, and a ranker that reads them."""

    def __init__(self, root, **declared) -> None:
        recipe = small_recipe()
        training = TrainingConfig(
            window_days=3, batch_rows=64, learning_rate=5e-3, incremental_learning_rate=5e-3
        )
        families = {"ctr": rankers.CTR, "cvr": rankers.CVR, "unified": unified.ABLE}
        chosen = RankingConfig(families=families, training=training, draws=200)
        super().__init__(root, dataclasses.replace(recipe, ranking=chosen))
        ranker = {"family": "ctr", "learns": "ctr", "pools": ("ctr", "cvr"), **declared}
        declaration = RankerDeclaration(name=NAME, **ranker)
        self.home = self.home.model_copy(update={"rankers": (declaration,)})
        self.dim = recipe.model.embedding_dim

    def add_pools(self, ds, *, dim=None, value=None) -> None:
        """Pools as the merge of both upstreams would have left them at the end of a day."""
        dim = dim or self.dim
        for upstream in ("ctr", "cvr"):
            outputs = []
            for entity, count in (("user", 30), ("pin", 25)):
                random = np.random.default_rng((ord(upstream[1]), len(entity)))
                vectors = random.standard_normal((count, dim)).astype("<f4") * 0.1
                vectors[np.arange(count), np.arange(count) % TOPICS] += 1
                if value is not None:
                    vectors[0] = value
                outputs.append(self._pool(upstream, entity, ds, vectors))
            self.record("merge", ds, upstream, tuple(outputs))

    def _pool(self, upstream, entity, ds, vectors):
        table = pool_table(upstream, entity)
        schema = arrow_schema(table)
        rows = len(vectors)
        filler = {
            "entity_id": [f"{entity}{i}" for i in range(rows)],
            "embedding": pack(vectors),
        }
        columns = {
            f.name: filler.get(f.name, pa.array([_some(f.type, ds)] * rows, f.type)) for f in schema
        }
        data = pa.table(columns, schema=schema)
        properties = {"dim": str(vectors.shape[1]), "dtype": "float32", "buckets": "1"}
        staged = [stage_file(self.lake.root, table, ds, data, bucket=0)]
        return self.lake.commit(table, ds, staged, properties=properties)

    def step(self, name, ds) -> None:
        ctx, step = self.context(ds, NAME), catalog.step(name)
        record(ctx, step, resolve_inputs(ctx, step), lambda: RUN[name](ctx))

    def rank(self, ds) -> None:
        for step in ranking.STEPS:
            self.step(step.name, ds)

    def metrics(self, step, ds) -> dict:
        return self.manifests.get(step, ds, NAME).metrics


def _some(kind, ds):
    if pa.types.is_integer(kind):
        return 1
    return ds if pa.types.is_string(kind) else None
