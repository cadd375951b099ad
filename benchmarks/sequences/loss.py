"""How much memory the softmax takes as its pool grows: in blocks, and with all logits at once.

    python -m benchmarks.sequences.loss --json loss.json

Each size is a process of its own, forward and backward once; `peak_mb` is what the process grew by
beyond the queries, the pool and their gradients, which are there whatever the loss is; the pool's
gradient is held once more while it is added up.
"""

import multiprocessing
import resource
from multiprocessing.connection import Connection

import torch

from benchmarks import harness
from models.nn.sampled_softmax import NO_USER, Pool, Positives, SampledSoftmax

ROWS, DIM = 1024, 64
SIZES = (1024, 8192, 65_536)
_MB = 1024


def main() -> None:
    """Measure, and write the report."""
    args = harness.arguments(__doc__, rounds=3).parse_args()
    contenders = {
        f"{'blocks' if in_blocks else 'whole'} {size}": measured(size, in_blocks=in_blocks)
        for in_blocks in (True, False)
        for size in SIZES
    }
    found = harness.summary(harness.alternate(contenders, args.rounds, warm_up=0))
    harness.report({"contenders": found, "rows": ROWS, "dim": DIM}, args)


def measured(size: int, *, in_blocks: bool) -> harness.Contender:
    """One pass in a process of its own."""

    def run() -> harness.Numbers:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_pass, args=(size, in_blocks, there))
        process.start()
        found: harness.Numbers = here.recv()
        process.join()
        return found

    return run


def _pass(size: int, in_blocks: bool, pipe: Connection) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    query, item = torch.randn(ROWS, DIM), torch.randn(ROWS, DIM)
    pool_items = torch.randn(size, DIM, requires_grad=True)
    query.requires_grad_()
    # Their gradients are there before anything is measured.
    query.grad, pool_items.grad = torch.zeros_like(query), torch.zeros_like(pool_items)
    positives = Positives(
        query_RD=query,
        item_RD=item,
        item_id_R=torch.arange(ROWS),
        user_id_R=torch.arange(ROWS),
        log_q_R=torch.zeros(ROWS),
    )
    pool = Pool(
        item_PD=pool_items,
        item_id_P=torch.arange(size) + ROWS // 2,
        user_id_P=torch.full((size,), NO_USER),
        log_q_P=torch.zeros(size),
    )
    softmax = SampledSoftmax(in_blocks=in_blocks)
    before, clock = _peak_mb(), harness.Clock()
    softmax(positives, pool).sum().backward()
    clock.stop()
    pipe.send({"peak_mb": _peak_mb() - before, "cpu_s": clock.cpu, "wall_s": clock.wall})


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MB


if __name__ == "__main__":
    main()
