"""Ours, and its floor, for train.py: the click ranker, and its matrix products alone.

python -m benchmarks.ranking.contender ours|floor SHAPE
"""

import sys
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.ranking.rounds import Shape, batch, serve
from feature_store.contracts.datasets import Feature
from models.nn.config import ExpertsConfig
from models.rankers.config import CtrConfig
from models.rankers.ctr import CtrRanker
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.training.optimizer import FlatAdamW

Product = tuple[Tensor, Tensor]


def main() -> None:
    """Serve rounds until the standard input ends."""
    shape = Shape.told(sys.argv[2])
    torch.set_num_threads(shape.threads)
    torch.manual_seed(0)
    objective = _objective(shape)
    {"ours": _ours, "floor": _floor}[sys.argv[1]](shape, objective)


def _ours(shape: Shape, objective: RankingObjective) -> None:
    """What the pipeline runs: forward, backward and the optimizer; or a forward pass alone."""
    told = _batch(shape)
    optimizer = FlatAdamW(objective, learning_rate=1e-3, weight_decay=0.01, max_norm=1.0)

    def train() -> None:
        objective.train()
        optimizer.zero_grad()
        objective(told)["total"].backward()
        optimizer.step()

    @torch.inference_mode()
    def score() -> None:
        objective.eval()
        objective.predict(told)

    serve(shape, train, score)


def _floor(shape: Shape, objective: RankingObjective) -> None:
    """Every product of ours on tensors of the same shapes; where there is one copy, without one."""
    products = list(_products(objective, shape.rows))
    del objective
    serve(
        shape,
        lambda: _multiply(products, backward=True),
        lambda: _multiply(products, backward=False),
    )


def _objective(shape: Shape) -> RankingObjective:
    experts = ExpertsConfig(
        num_experts=shape.experts, cross_layers=shape.layers, hidden=shape.hidden
    )
    config = CtrConfig(
        categorical_dim=shape.width, projection=shape.projection, experts=experts, tower=()
    )
    numbers = [_feature(f"number_{i}", "numeric") for i in range(shape.numbers)]
    kinds = [
        _feature(f"kind_{i}", "categorical", cardinality=shape.vocabulary)
        for i in range(shape.kinds)
    ]
    vectors = tuple(
        _feature(name, "embedding", scope=name.split("_")[0], dim=shape.dim)
        for name in shape.vectors
    )
    return RankingObjective(
        RankingInputs(
            user=(*numbers, *kinds[::2]),
            pin=tuple(f.model_copy(update={"scope": "pin"}) for f in kinds[1::2]),
            context=(),
            vectors=vectors,
            tasks=("label",),
            surfaces=("feed", "related", "search"),
        ),
        config,
    )


def _feature(name: str, kind: str, *, scope: str = "user", **sizes: int) -> Feature:
    declared = {"name": name, "scope": scope, "kind": kind, "meaning": name, **sizes}
    return Feature.model_validate(declared)


def _batch(shape: Shape) -> dict[str, Tensor]:
    told = {name: torch.from_numpy(array) for name, array in batch(shape).items()}
    told["label:label"] = told.pop("label")
    return told | {
        "surface": torch.ones(shape.rows, dtype=torch.int32),
        "ts": torch.full((shape.rows,), 1.74e9, dtype=torch.float64),
        "late": torch.zeros(shape.rows, dtype=torch.bool),
    }


def _products(objective: RankingObjective, rows: int) -> list[Product]:
    """Inputs and weights of the products of a pass: of the crosses, the deep parts, the towers."""
    model = cast("CtrRanker", objective.model)
    layers = (*model.experts.cross.layers, *model.experts.deep.layers, *model.towers.layers)
    weights = [cast("Tensor", layer.weight) for layer in layers]
    if model.vectors is not None:
        projections = cast("list[nn.Linear]", list(model.vectors.project.values()))
        weights += [linear.weight.T[None] for linear in projections]
    kept = [w.detach().clone() for w in weights]
    return [(torch.randn(len(w), rows, w.shape[1]), w) for w in kept]


def _multiply(products: list[Product], *, backward: bool) -> None:
    for x_KBI, weight_KIO in products:
        out_KBO = torch.bmm(x_KBI, weight_KIO)
        if backward:
            torch.bmm(out_KBO, weight_KIO.transpose(1, 2))
            torch.bmm(x_KBI.transpose(1, 2), out_KBO)


if __name__ == "__main__":
    main()
