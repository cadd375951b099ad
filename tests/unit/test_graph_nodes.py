"""Advertisers and items of the graph of a day have vectors too, in a table of the lake."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch

from feature_store.contracts.edges import GraphRules, nodes_table
from feature_store.contracts.manifests import SnapshotManifest
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from feature_store.reading.day_edges import DayEdges
from feature_store.reading.examples import Order
from feature_store.reading.graph import build_graph
from jobs.pipelines import catalog
from jobs.steps.infer import Embedder, other_nodes
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from models.transra.config import GraphConfig
from models.transra.family import FAMILY
from simulator.market.spec import market_spec
from tests.market_fixtures import DAYS, market_days, tiny_market
from tests.pipelines import GRAPH, WHOLE

SPEC, DS = market_spec("market", tiny_market()), DAYS[12]
CONFIG = GraphConfig(embedding_dim=8, passes=1, first_passes=1)


def test_every_node_of_a_market_that_is_no_entity_has_a_row(tmp_path: Path) -> None:
    lake, made = Lake(tmp_path / "lake"), market_days()[DS]
    lake.overwrite(SPEC.events_table(), DS, made.events)
    for table in SPEC.tables:
        lake.overwrite(table, DS, made.more[table.name])
    build_graph(lake, SPEC, DS, GraphRules(), tmp_path, buckets=2)
    day = DayEdges(lake, DS, FAMILY.edges(SPEC, CONFIG), since=DAYS[11], begins=True)
    objective = FAMILY.objective(SPEC, "graph", CONFIG, ())
    objective.meet(day.graph)
    cpu = torch.device("cpu")
    trainer = Trainer(objective, TrainingConfig(), cpu, learning_rate=1e-3, empty=day.empty())
    batches = list(day.batches(Order(batch_rows=512, seed=1)))
    trainer.train(batches, seed=("nodes",))
    snapshot = SnapshotManifest(
        snapshot_id="one",
        space_id="space",
        parent_id=None,
        upstream="graph",
        ds=DS,
        seen_days=(DS,),
        embedding_dim=8,
        recipe="",
        metrics={},
        files={},
    )
    embedder = Embedder(objective=objective, snapshot=snapshot, device=cpu, batch_rows=7)
    rows = other_nodes(embedder, day)
    found = set(zip(rows["node_type"].to_pylist(), rows["node_id"].to_pylist(), strict=True))
    names = dict(enumerate(("user", "pin", "advertiser", "item")))
    kinds = [names[number] for number in day.graph.type_N]
    nodes = set(zip(kinds, day.graph.id_N.tolist(), strict=True))
    assert found == {node for node in nodes if node[0] in ("advertiser", "item")}
    assert len(found) == len(rows)
    assert set(pc.unique(rows["node_type"]).to_pylist()) == {"advertiser", "item"}
    np.testing.assert_allclose(np.linalg.norm(unpack(rows["embedding"], 8), axis=1), 1, rtol=1e-5)
    assert len(other_nodes(embedder, day, nobody=True)) == 0


def test_the_table_is_an_output_of_those_that_read_edges_and_of_no_others() -> None:
    infer = catalog.step("infer")
    for upstream in WHOLE.names:
        written = {what.table for what in WHOLE.outputs_of(infer, upstream)}
        own = nodes_table(upstream).name
        assert (own in written) == (upstream == GRAPH.name)
