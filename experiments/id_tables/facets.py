"""Both facets of tables, pretrained on the past of a market: from pairs, and from a graph.

Shapes: R rows of a table, N nodes, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from experiments.id_tables.worlds import MarketOptions, TablesWorld
from feature_store.contracts.base import ENTITIES, Entity
from feature_store.contracts.edges import NODE_TYPES, GraphRules
from feature_store.lake.buckets import stable_hash
from feature_store.lake.lake import Lake
from feature_store.reading.examples import Order
from feature_store.reading.graph import build_graph, read_graph
from feature_store.reading.positives import DayPairs, PairDays
from models.id_tables.config import IdTablesConfig
from models.id_tables.family import FAMILY
from models.id_tables.objective import IdTablesObjective
from models.nn.config import IdTableConfig, NegativesConfig
from models.nn.hashing import row_of
from models.nn.id_table import DEFAULT_ROW, IdTable
from models.training.config import TrainingConfig
from models.training.determinism import make_deterministic, seed_for, seed_torch
from models.training.loop import Trainer
from models.transra.config import DrawConfig, GraphConfig, ScoreConfig
from models.transra.graph import Relation, Triples, make_graph
from models.transra.training import GraphTrainer, new_model

PAIRS, GRAPH = "pairs", "graph"
_BATCH_ROWS = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class FacetOptions:
    """How tables are pretrained.

    Attributes:
        width, rows: of every table; far more rows than ids, so that few meet.
        passes, graph_passes: over the past.
        rate: of row-wise Adagrad, from scratch.
        min_count: positives, or edges, below which an id has no row.
    """

    width: int = 16
    rows: int = 2**12
    passes: int = 3
    graph_passes: int = 6
    rate: float = 0.05
    min_count: int = 5


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: its weight_RD and its count_R."""

    weight_RD: Tensor
    count_R: Tensor


Facet = Mapping[Entity, Rows]


@lru_cache(maxsize=1)
def tables_world(options: MarketOptions, seed: int) -> TablesWorld:
    """The market of a seed; a process keeps the last one, for the next variant."""
    return TablesWorld(options, seed)


@lru_cache(maxsize=8)
def pretrained(
    options: MarketOptions, how: FacetOptions, seed: int, stale: int
) -> dict[str, Facet]:
    """Both facets by name, of the days that end so long before the ranker's."""
    make_deterministic(threads=1)
    world = tables_world(options, seed)
    with TemporaryDirectory(prefix="experiment-past-") as folder:
        lake, ds = world.past(stale, Path(folder))
        return {
            PAIRS: _from_pairs(world, lake, ds, how),
            GRAPH: _from_graph(world, lake, ds, how, Path(folder)),
        }


def one_for_all(facet: Facet) -> Facet:
    """A table in which every id reads the default row."""
    return {
        e: Rows(rows.weight_RD[DEFAULT_ROW].expand_as(rows.weight_RD).clone(), rows.count_R)
        for e, rows in facet.items()
    }


def shuffled(facet: Facet, seed: int) -> Facet:
    """A table whose rows were dealt out anew among those who have one."""
    found = {}
    for entity, rows in facet.items():
        taken = torch.from_numpy(np.flatnonzero(rows.count_R.numpy() > 0))
        order = np.random.default_rng((seed, len(entity))).permutation(len(taken))
        weight_RD = rows.weight_RD.clone()
        weight_RD[taken] = rows.weight_RD[taken[torch.from_numpy(order)]]
        found[entity] = Rows(weight_RD, rows.count_R)
    return found


def _from_pairs(world: TablesWorld, lake: Lake, ds: str, how: FacetOptions) -> Facet:
    config = IdTablesConfig(
        embedding_dim=how.width,
        user_rows=how.rows,
        pin_rows=how.rows,
        min_count=how.min_count,
        learning_rate=how.rate,
        negatives=NegativesConfig(max_in_batch=512, random=256, sketch_width=2**12),
    )
    inputs = FAMILY.pairs(world.spec, config)
    day = DayPairs(PairDays(lake=lake, spec=world.spec, inputs=inputs, days=(ds,)))
    seed_torch(world.seed, ds, PAIRS)
    objective = IdTablesObjective(config)
    trainer = Trainer(
        objective,
        TrainingConfig(batch_rows=_BATCH_ROWS, prefetch_batches=0, checkpoint_steps=0),
        torch.device("cpu"),
        learning_rate=1e-3,
        empty=day.empty(),
    )
    for number in range(how.passes):
        order = Order(
            batch_rows=_BATCH_ROWS,
            seed=seed_for(world.seed, ds, number),
            random_pins=FAMILY.random_pins(config),
        )
        trainer.train(day.batches(order), seed=(world.seed, number), again=number > 0)
    tables = {e: cast("IdTable", objective.table[e]) for e in ENTITIES}
    return {e: Rows(t.weight.detach().clone(), t.count_R.clone()) for e, t in tables.items()}


def _from_graph(world: TablesWorld, lake: Lake, ds: str, how: FacetOptions, scratch: Path) -> Facet:
    """Vectors of the graph of those days, as rows of a table."""
    build_graph(lake, world.spec, ds, GraphRules(), scratch)
    numbered = read_graph(lake, ds)
    relations = [Relation(name=f"{h}_{n}_{t}", head=h, tail=t) for h, n, t in numbered.relations]
    triples = Triples.of(numbered.head_K, numbered.relation_K, numbered.tail_K, numbered.weight_K)
    graph = make_graph(NODE_TYPES, numbered.type_N, relations, triples)
    config = GraphConfig(
        score=ScoreConfig(anchor="identity", anchor_relation="user_click_pin"),
        draw=DrawConfig(chunk_rows=64, chunks=32, negatives=256),
        embedding_dim=how.width,
        learning_rate=1e-2,
    )
    model = new_model(graph, config, world.seed)
    trainer = GraphTrainer(model, graph, seed=world.seed)
    for number in range(how.graph_passes):
        trainer.train(number)
    vector_ND = torch.from_numpy(model.everybody().copy())
    return {
        e: as_rows(
            IdTableConfig(rows=how.rows, dim=how.width, min_count=how.min_count),
            numbered.id_N[numbered.type_N == NODE_TYPES.index(e)],
            vector_ND[torch.from_numpy(numbered.type_N == NODE_TYPES.index(e))],
        )
        for e in ENTITIES
    }


def as_rows(config: IdTableConfig, ids_N: np.ndarray, vector_ND: Tensor) -> Rows:
    """Vectors by id as a table: the mean of those that meet; the default row is the mean of all."""
    key_N = torch.from_numpy(stable_hash(pa.array(ids_N.tolist(), pa.string())).view(np.int64))
    row_N = row_of(key_N, config.rows)
    weight_RD = torch.zeros(config.rows, config.dim).index_add_(0, row_N, vector_ND)
    meet_R = torch.bincount(row_N, minlength=config.rows)
    weight_RD /= meet_R.clamp(min=1)[:, None]
    weight_RD[DEFAULT_ROW] = vector_ND.mean(dim=0)
    return Rows(weight_RD, (meet_R > 0).int() * config.min_count)
