"""Triples a second of training on a graph: ours, PyKEEN's, and the bare products of a step.

    python -m benchmarks.graph.train --json train.json
    python -m benchmarks.graph.train --data FOLDER --pykeen PYTHON --mrr 0.3 --json train.json

ComplEx, the same width, as many negatives for every triple and side, Adagrad, one thread. FOLDER
holds train, valid and test.parquet of a public graph; without one, a random graph as large. PYTHON
is that of an environment with pykeen and torch; without one, that contender does not run.

The floor is what a step cannot do without, run bare over random numbers of the same shapes: its
rows, read and written back, and the products of questions and negatives, forward and back.
`edges` is the same step on random graphs of other sizes: what a triple costs should not depend on
them. `seconds_to_mrr` are seconds of training, validations apart, until that MRR was reached.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks import harness
from experiments.graph.runs import LinkRun, PassSchedule
from experiments.graph.triples import PublicGraph, read_public
from models.training.determinism import make_deterministic
from models.transra.config import DrawConfig, GraphConfig, GraphLossConfig, ScoreConfig
from models.transra.graph import Graph, Relation, Triples, make_graph
from models.transra.training import GraphTrainer, new_model

# Nodes, relations and triples of WN18RR.
SIZE = (40_943, 11, 86_835)
ROWS = 1024
PASSES = 200


def main() -> None:
    """Measure in turn, and report."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, help="folder of a public graph")
    parser.add_argument("--pykeen", help="a python with pykeen")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=512)
    parser.add_argument("--batches", type=int, default=30, help="of a round")
    parser.add_argument("--mrr", type=float, help="also the seconds until this validation MRR")
    parser.add_argument("--limit", type=float, default=300, help="seconds for that, each")
    parser.add_argument("--edges", type=int, nargs="*", default=[100_000, 1_000_000])
    args = parser.parse_args()
    make_deterministic(threads=1)
    data = read_public(args.data) if args.data else None
    graph = data.graph if data else random_graph(*SIZE)
    config = complex_config(args.width, args.negatives)
    contenders = {
        "ours": steps(graph, config, args.batches),
        "floor": floor(graph, config, args.batches),
    }
    with tempfile.TemporaryDirectory() as folder:
        if args.pykeen:
            contenders["pykeen"] = pykeen(args, graph, Path(folder))
        found = harness.summary(harness.alternate(contenders, args.rounds))
        for numbers in found.values():
            numbers["triples_per_s"] = numbers["triples"] / numbers["cpu_s"]
        result = {"contenders": shares(found), "width": args.width, "negatives": args.negatives}
        if data and args.mrr:
            seconds = seconds_to_mrr(data, config, args.mrr, args.limit, Path(folder))
            result["contenders"]["ours"]["seconds_to_mrr"] = seconds
    result["edges"] = {str(edges): of_size(edges, config, args) for edges in args.edges}
    harness.report(result, args)


def complex_config(width: int, negatives: int) -> GraphConfig:
    """ComplEx as a public graph is learned with."""
    return GraphConfig(
        score=ScoreConfig(name="complex", anchor="none"),
        loss=GraphLossConfig(trains_scale=False),
        draw=DrawConfig(
            chunk_rows=128,
            chunks=ROWS // 128,
            negatives=negatives,
            in_batch=False,
            relation_power=1,
        ),
        embedding_dim=width,
        max_norm=0.0,
        learning_rate=1e-2,
    )


def random_graph(nodes: int, relations: int, edges: int) -> Graph:
    """A graph of one type of nodes without order."""
    random = np.random.default_rng(0)
    named = [Relation(name=f"r{i}", head="node", tail="node") for i in range(relations)]
    triples = Triples.of(
        random.integers(0, nodes, edges),
        random.integers(0, relations, edges),
        random.integers(0, nodes, edges),
    )
    return make_graph(("node",), np.zeros(nodes), named, triples)


def steps(graph: Graph, config: GraphConfig, batches: int) -> harness.Contender:
    """Some steps of ours: drawing, the model, and both optimizers."""
    trainer = GraphTrainer(new_model(graph, config, 0), graph, seed=0)
    passes = iter(range(1_000_000))

    def run() -> harness.Numbers:
        clock = harness.Clock()
        passed = trainer.train(next(passes), batches=batches)
        clock.stop()
        return {"cpu_s": clock.cpu, "wall_s": clock.wall, "triples": passed.triples}

    return run


def floor(graph: Graph, config: GraphConfig, batches: int) -> harness.Contender:
    """The rows and the products of as many steps."""
    drawn = next(iter(GraphTrainer(new_model(graph, config, 0), graph, seed=0).draw.batches(0)))
    rows, negatives = drawn.head_GC.size, len(drawn.pools[0].node_P)
    table_ND = torch.randn(len(graph), config.embedding_dim)
    node_U = torch.from_numpy(drawn.node_U)
    question_QD = torch.randn(2 * rows, config.embedding_dim)
    candidate_PD = torch.randn(negatives, config.embedding_dim)

    def step() -> None:
        found_UD = table_ND[node_U]
        score_QP = question_QD @ candidate_PD.T
        torch.mm(score_QP, candidate_PD)
        torch.mm(score_QP.T, question_QD)
        table_ND.index_copy_(0, node_U, found_UD)

    def run() -> harness.Numbers:
        clock = harness.Clock()
        for _ in range(batches):
            step()
        clock.stop()
        return {"cpu_s": clock.cpu, "wall_s": clock.wall, "triples": rows * batches}

    return run


def pykeen(args, graph: Graph, folder: Path) -> harness.Contender:
    """One pass of PyKEEN in its own environment, over as many triples as our steps."""
    triples = graph.triples
    columns = np.stack([triples.head_K, triples.relation_K, triples.tail_K], axis=1)
    np.save(folder / "triples.npy", columns[: args.batches * ROWS])
    command = [args.pykeen, str(Path(__file__).with_name("pykeen_pass.py"))]
    command += [str(folder / "triples.npy"), str(len(graph)), str(len(graph.relations))]
    command += [str(args.width), str(2 * args.negatives), str(ROWS)]

    def run() -> harness.Numbers:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found: harness.Numbers = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


def shares(found: dict[str, harness.Numbers]) -> dict[str, harness.Numbers]:
    """With what part of the floor's triples a second each reaches."""
    most = found["floor"]["triples_per_s"]
    return {k: {**n, "share_of_floor": n["triples_per_s"] / most} for k, n in found.items()}


def seconds_to_mrr(
    data: PublicGraph, config: GraphConfig, wanted: float, limit: float, folder: Path
) -> float | None:
    """Seconds of training until a validation MRR; None where the limit came first."""
    reached: list[float] = []
    for passes in range(2, PASSES, 2):
        schedule = PassSchedule(passes=passes, every=2, patience=PASSES)
        run = LinkRun(config, data, schedule, seed=0, folder=folder / "run")
        run.train()
        reached.append(run.curve[-1]["validation_mrr"])
        if reached[-1] >= wanted:
            return run.curve[-1]["train_s"]
        if run.curve[-1]["train_s"] > limit:
            return None
    return None


def of_size(edges: int, config: GraphConfig, args) -> harness.Numbers:
    """What a triple costs on a random graph of some size: median of the rounds."""
    run: Callable[[], harness.Numbers] = steps(
        random_graph(edges // 4, 11, edges), config, args.batches
    )
    found = harness.medians([run() for _ in range(1 + args.rounds)][1:])
    return {**found, "us_per_triple": 1e6 * found["cpu_s"] / found["triples"]}


if __name__ == "__main__":
    sys.exit(main())
