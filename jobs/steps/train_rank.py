"""One process of a training on several: started by torchrun, which `derm train` starts.

    torchrun --standalone --nproc-per-node 4 -m jobs.steps.train_rank --ds 2025-03-01 --upstream ctr

Every process makes the same plan from the manifests, reads its share of each day's rows, and steps
with the others; the first one writes the draft that `derm train` then checks.
"""

import argparse
import logging
import os

import torch
import torch.distributed as dist

from jobs.console import day
from jobs.engine.runner import open_context
from jobs.engine.snapshots import SnapshotStore
from jobs.settings import Settings
from jobs.steps.training_plan import plan_training
from jobs.steps.training_run import TrainingRun

# Sums of metrics are on the CPU wherever the model is.
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def main() -> None:
    """Join the other processes and train."""
    parser = argparse.ArgumentParser(description="one process of a training")
    parser.add_argument("--ds", required=True, type=day)
    parser.add_argument("--upstream", required=True)
    args = parser.parse_args()
    ctx = open_context(Settings(), args.ds, args.upstream)
    if ctx.settings.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(BACKENDS["cuda"])
    else:
        dist.init_process_group(BACKENDS["cpu"])
    if dist.get_rank() == 0:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = SnapshotStore(ctx.root, ctx.own_upstream)
    TrainingRun(ctx, plan_training(ctx, store), store).run()
    # The first process still writes: one that left now would take the connections down with it.
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
