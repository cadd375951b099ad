"""Two processes over gloo, for tests that compare them with one."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models.derm.config import DermConfig
from models.training.checkpoint import module_tensors, read_tensors, write_tensors
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from tests.model_fixtures.batches import SMALL, batch, objective, with_random_pins

RANKS = 2
ROWS = 24


def whole_batches(count: int) -> list[dict]:
    """Batches as a single process would see them."""
    batches = [with_random_pins(batch(ROWS, seed=i), seed=100 + i) for i in range(count)]
    return [{k: v.numpy() for k, v in b.items()} for b in batches]


def train(batches: list[dict], model: DermConfig = SMALL) -> dict:
    """Weights, losses and scores after a pass over the batches of this rank."""
    config = TrainingConfig(prefetch_batches=0, checkpoint_steps=0)
    empty = {k: v[:0] for k, v in whole_batches(1)[0].items()}
    cpu = torch.device("cpu")
    trainer = Trainer(objective(model), config, cpu, learning_rate=1e-3, empty=empty)
    gradients: list[dict] = []

    def keep(_) -> None:
        named = trainer.objective.named_parameters()
        gradients.append({k: p.grad.clone() for k, p in named})

    state = trainer.train(batches, seed=(1,), on_step=keep)
    return {
        "gradients": gradients[0],
        "weights": module_tensors(trainer.objective),
        "losses": state.losses,
        "steps": state.steps,
        "rows": state.rows,
        "scores": trainer.score(batches),
    }


def train_on_ranks(
    folder: Path, batches: list[list[dict]], model: DermConfig = SMALL
) -> list[dict]:
    """The result of each rank; `batches` by rank."""
    mp.spawn(_rank, (str(folder), batches, model), nprocs=RANKS)
    return [_read(folder, rank) for rank in range(RANKS)]


def _rank(rank: int, folder: str, batches: list[list[dict]], model: DermConfig) -> None:
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=RANKS)
    result = train(batches[rank], model)
    for name in ("gradients", "weights"):
        write_tensors(Path(folder) / f"{name}-{rank}", result.pop(name))
    (Path(folder) / f"numbers-{rank}").write_text(json.dumps(result))
    dist.destroy_process_group()


def _read(folder: Path, rank: int) -> dict:
    numbers = json.loads((folder / f"numbers-{rank}").read_text())
    tensors = {n: read_tensors(folder / f"{n}-{rank}")[0] for n in ("gradients", "weights")}
    return numbers | tensors
