"""Passes over a graph: batch by batch, the nodes by Adagrad, everything else by Adam."""

from dataclasses import dataclass, field
from itertools import islice

import torch

from models.training.checkpoint import Tensors
from models.training.determinism import seed_torch
from models.transra.config import GraphConfig
from models.transra.draw import Draw
from models.transra.graph import Graph
from models.transra.model import GraphModel


@dataclass(kw_only=True)
class GraphPass:
    """What a pass did.

    Attributes:
        triples: those that were learned from.
        losses: means over the batches.
    """

    triples: int = 0
    batches: int = 0
    losses: dict[str, float] = field(default_factory=dict)


class GraphTrainer:
    """Trains a model on a graph, pass by pass.

    Args:
        seed: of everything that is drawn; a pass draws the same whatever went before it.
    """

    def __init__(self, model: GraphModel, graph: Graph, *, seed: int) -> None:
        self.model, self.draw, self.seed = model, Draw(graph, model.config.draw), seed
        dense = [p for p in model.parameters() if p is not model.table.vector_ND]
        self.optimizer = torch.optim.Adam(dense, lr=model.config.learning_rate)

    def train(self, number: int, *, batches: int | None = None, rate: float = 1.0) -> GraphPass:
        """One pass.

        Args:
            number: of the pass; it decides what is drawn.
            rate: by which both learning rates are multiplied.
            batches: of the pass that are done; all of them by default.
        """
        self.model.train()
        config, table = self.model.config, self.model.table
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * rate
        passed = GraphPass()
        for drawn in islice(self.draw.batches(self.seed, number), batches):
            node_U = torch.from_numpy(drawn.node_U)
            found_UD = table.gather(node_U)
            losses = self.model(drawn, found_UD)
            self.optimizer.zero_grad()
            losses["total"].backward()
            self.optimizer.step()
            table.update(
                node_U, found_UD, rate=config.table_learning_rate * rate, max_norm=config.max_norm
            )
            passed.batches += 1
            passed.triples += int((drawn.weight_GC > 0).sum())
            for name, value in losses.items():
                passed.losses[name] = passed.losses.get(name, 0.0) + float(value.detach())
        passed.losses = {k: v / max(passed.batches, 1) for k, v in passed.losses.items()}
        return passed

    def tensors(self) -> Tensors:
        """Model and optimizer, by name."""
        moments = self.optimizer.state_dict()["state"]
        found = {f"model/{k}": v.clone() for k, v in self.model.state_dict().items()}
        for index, state in moments.items():
            found |= {f"optimizer/{index}/{k}": v.clone() for k, v in state.items()}
        return found

    def load(self, tensors: Tensors) -> None:
        """Continue from what `tensors` gave."""
        part = {k[len("model/") :]: v for k, v in tensors.items() if k.startswith("model/")}
        self.model.load_state_dict(part)
        saved = self.optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, kind = name.split("/")
                saved["state"].setdefault(int(index), {})[kind] = value
        self.optimizer.load_state_dict(saved)


def new_model(graph: Graph, config: GraphConfig, seed: int) -> GraphModel:
    """A model with weights drawn from a seed."""
    seed_torch(seed, "graph")
    return GraphModel(graph, config)
