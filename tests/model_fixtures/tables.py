"""An objective with a table of users and a task that is a number, for tests of the loop."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from models.protocol import Objective, RowWise
from models.training.checkpoint import module_tensors, read_tensors, write_tensors
from models.training.config import TrainingConfig
from models.training.distributed import sum_over_ranks
from models.training.loop import Trainer
from models.training.regression import RegressionMetrics

HOW = RowWise(learning_rate=0.1)
USERS, WIDTH, ROWS, RANKS = 20, 4, 12, 2


class TableObjective(Objective):
    """Predicts a rating from a user's row and a number of the event."""

    tasks, losses, every_parameter_learns = ("rating",), ("total",), True

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(USERS, WIDTH, sparse=sparse)
        self.scale = nn.Linear(WIDTH + 1, 1)

    def tables(self):
        return {"table.weight": HOW}

    def forward(self, batch):
        target_B = self.targets(batch)[:, 0]
        known_B = ~torch.isnan(target_B)
        error_B = (self.predict(batch)[:, 0] - target_B.nan_to_num()) * known_B
        return {"total": error_B.square().sum() / sum_over_ranks(known_B.sum()).clamp(min=1)}

    def predict(self, batch):
        rows_BW = self.table(batch["key:user"])
        return self.scale(torch.cat([rows_BW, batch["x"][:, None]], dim=1))

    def targets(self, batch):
        return batch["rating"][:, None]

    def metrics(self):
        return {"rating": RegressionMetrics()}


def batches(count: int) -> list[dict]:
    """Ratings that follow from the user; some are not known, some are of other days."""
    taste_U = np.random.default_rng(0).normal(3, 1, USERS)
    found = []
    for number in range(count):
        random = np.random.default_rng(number + 1)
        user_B = random.integers(0, USERS // 2 if number % 2 else USERS, ROWS)
        x_B = random.normal(0, 1, ROWS)
        rating_B = taste_U[user_B] + 0.3 * x_B
        rating_B[0] = np.nan
        row = {"key:user": user_B, "x": x_B, "rating": rating_B}
        row = {k: v.astype(np.float32) if k != "key:user" else v for k, v in row.items()}
        found.append({**row, "late": np.arange(ROWS) == 1})
    return found


def trainer(objective: Objective | None = None) -> Trainer:
    """A trainer with seeded weights."""
    torch.manual_seed(0)
    objective = objective or TableObjective(sparse=True)
    empty = {name: column[:0] for name, column in batches(1)[0].items()}
    config = TrainingConfig(prefetch_batches=0, checkpoint_steps=0)
    return Trainer(objective, config, torch.device("cpu"), learning_rate=1e-2, empty=empty)


def train_on_ranks(folder: Path, rows: list[list[dict]]) -> list[dict]:
    """Weights, optimizer and scores of each rank; `rows` by rank."""
    mp.spawn(_rank, (str(folder), rows), nprocs=RANKS)
    return [
        {
            "tensors": read_tensors(folder / f"tensors-{rank}")[0],
            "scores": json.loads((folder / f"scores-{rank}").read_text()),
        }
        for rank in range(RANKS)
    ]


def _rank(rank: int, folder: str, rows: list[list[dict]]) -> None:
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=RANKS)
    found = trainer()
    found.train(rows[rank], seed=(1,))
    tensors = module_tensors(found.objective) | found.optimizer.tensors()
    write_tensors(Path(folder) / f"tensors-{rank}", tensors)
    (Path(folder) / f"scores-{rank}").write_text(json.dumps(found.score(rows[rank])))
    dist.destroy_process_group()
