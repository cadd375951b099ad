"""Id tables over several processes: one start of four plays every part, for starts are dear."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models.id_tables.config import IdTablesConfig
from models.id_tables.objective import IdTablesObjective
from models.id_tables.sharded import read_shard, write_shard
from models.nn.config import NegativesConfig
from models.training.checkpoint import write_tensors
from models.training.config import TrainingConfig
from models.training.distributed import gather
from models.training.loop import PassState, Trainer
from tests.model_fixtures.pairs import batch

STEPS = 20
CONFIG = IdTablesConfig(
    embedding_dim=4,
    user_rows=23,
    pin_rows=29,
    hashes=2,
    min_count=2,
    negatives=NegativesConfig(max_in_batch=64, random=8, sketch_width=2**10),
)
NAMES = ("table.user.weight", "table.pin.weight")


def trained(rank: int, ranks: int, *, sharded: bool, dies_after: int = 0) -> tuple[Trainer, list]:
    """A trainer after all steps over its share of the batches, and the loss of every step."""
    torch.manual_seed(0)
    whole = [batch(24, random=8, seed=step) for step in range(STEPS)]
    # The last two batches are the first rank's alone: the others take part without any rows.
    mine = [
        {name: x[len(x) * rank // ranks : len(x) * (rank + 1) // ranks] for name, x in b.items()}
        for b in whole[:-2]
    ] + (whole[-2:] if rank == 0 else [])
    trainer = Trainer(
        IdTablesObjective(CONFIG, sharded=sharded),
        TrainingConfig(prefetch_batches=0, checkpoint_steps=0),
        torch.device("cpu"),
        learning_rate=1e-3,
        empty={name: x[:0] for name, x in mine[0].items()},
    )
    losses: list[float] = []

    def keep(state: PassState) -> None:
        losses.append(state.latest["total"])
        if state.steps == dies_after:
            os._exit(0)

    trainer.train(mine, seed=(1,), on_step=keep)
    return trainer, losses


def play(folder: Path) -> None:
    """Train on 4 and on 2 ranks; read what 4 have written by 2, and that by 3; lose a rank."""
    mp.spawn(_rank, (str(folder),), nprocs=4)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    root = Path(folder)
    for ranks, part in ((4, _train), (2, _train), (2, _copy), (3, _copy), (2, _lose)):
        if rank < ranks:
            init = f"file://{root}/rendezvous-{ranks}-{part.__name__}"
            dist.init_process_group(
                "gloo",
                init_method=init,
                rank=rank,
                world_size=ranks,
                timeout=timedelta(seconds=60),
            )
            part(root, rank, ranks)
            dist.destroy_process_group()


def _train(root: Path, rank: int, ranks: int) -> None:
    """Train, and write the shards; rank 0 also the whole tables and the losses."""
    trainer, losses = trained(rank, ranks, sharded=True)
    named = dict(trainer.objective.named_parameters())
    folder = root / f"of-{ranks}"
    folder.mkdir(exist_ok=True)
    whole = {}
    for name in NAMES:
        write_shard(folder, name, named[name])
        parts = gather(named[name]).split([len(range(r, _rows(name), ranks)) for r in range(ranks)])
        whole[name] = torch.empty(_rows(name), CONFIG.embedding_dim)
        for other, part in enumerate(parts):
            whole[name][other::ranks] = part
    if rank == 0:
        write_tensors(root / f"whole-{ranks}", whole)
        (root / f"losses-{ranks}").write_text(json.dumps(losses))


def _copy(root: Path, rank: int, ranks: int) -> None:
    """Read what others have written, 4 by 2 and those by 3, and write it anew."""
    source = root / ("of-4" if ranks == 2 else "copy-2")
    folder = root / f"copy-{ranks}"
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        write_shard(folder, name, read_shard(source, name, _rows(name)))
    dist.barrier()


def _lose(root: Path, rank: int, ranks: int) -> None:
    """The second rank dies between two steps; what the first one notices, and when."""
    if rank == 1:
        trained(rank, ranks, sharded=True, dies_after=2)
    started = time.monotonic()
    try:
        trained(rank, ranks, sharded=True)
    except RuntimeError as error:
        told = {"error": str(error), "seconds": time.monotonic() - started}
        (root / "lost").write_text(json.dumps(told))
    os._exit(0)


def _rows(name: str) -> int:
    return CONFIG.user_rows if "user" in name else CONFIG.pin_rows
