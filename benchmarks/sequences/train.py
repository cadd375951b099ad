"""How fast a causal transformer trains on sequences: packed, padded, and its matrix products alone.

    python -m benchmarks.sequences.train --json train.json
    python -m benchmarks.sequences.train --lengths beauty --json train.json

Sequences have the lengths of a public data set, drawn from quantiles of it that stand below; items
are random, which no time depends on. A pass is forward, loss over shared negatives and backward,
without an optimizer. `tokens_per_s` counts real items per processor second on one thread; padding
is computed by the padded contender and counts for nobody. The floor is the matrix products of the
packed pass, recorded and run bare; those inside attention are fused, and no part of it. Peers
(RecTools, RecBole) need environments of their own, and are not measured here.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch

from benchmarks import harness
from benchmarks.pipeline.floor import ProductRecorder, products
from models.nn.packed import Packed
from models.sasrec.config import SasRecConfig
from models.sasrec.model import SasRec
from models.sasrec.objective import SasRecObjective

ITEMS = 4096
# Lengths at 0, 10, .. 100 % of users, cut at the model's length.
LENGTHS: dict[str, tuple[int, tuple[int, ...]]] = {
    "ml1m": (200, (15, 24, 34, 48, 67, 93, 123, 170, 200, 200, 200)),
    "beauty": (50, (2, 2, 2, 2, 3, 3, 4, 5, 7, 11, 50)),
}


class PaddedSasRec(SasRec):
    """The same model, which also computes what is padding.

    Source: SASRec (arXiv 1808.09781), as it is usually run.
    Deviations: none.
    """

    def forward(
        self, item_R: torch.Tensor, length_U: torch.Tensor, *, padded: bool = True
    ) -> torch.Tensor:
        """The query_RD of every position."""
        return super().forward(item_R, length_U, padded=padded)


def main() -> None:
    """Measure, and write the report."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--lengths", choices=tuple(LENGTHS), default="ml1m")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--users", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = SasRecConfig(dim=args.dim, max_len=LENGTHS[args.lengths][0], dropout=0.0)
    batch = drawn(args, config)
    ours, padded = objective(SasRec, config), objective(PaddedSasRec, config)
    tokens = len(batch["item"])
    contenders = {
        "ours": timed(lambda: step(ours, batch), tokens),
        "padded": timed(lambda: step(padded, batch), tokens),
        "floor": timed(bare(ours, batch), tokens),
    }
    found = harness.against_floor(harness.summary(harness.alternate(contenders, args.rounds)))
    real = tokens / (args.users * config.max_len)
    result = {
        "contenders": found,
        "lengths": args.lengths,
        "share_of_real_tokens": real,
        "groups": len(Packed.of(batch["length"]).groups),
        "packed_over_padded": found["padded"]["cpu_s"] / found["ours"]["cpu_s"],
    }
    harness.report(result, args)


def drawn(args: argparse.Namespace, config: SasRecConfig) -> dict[str, torch.Tensor]:
    """One batch of users."""
    random = np.random.default_rng(0)
    quantiles = LENGTHS[args.lengths][1]
    places = random.random(args.users) * (len(quantiles) - 1)
    length = np.interp(places, np.arange(len(quantiles)), quantiles).astype(np.int64)
    count = int(length.sum())
    return {
        "key:user": torch.arange(args.users),
        "length": torch.from_numpy(length),
        "item": torch.from_numpy(random.integers(0, ITEMS, count)),
        "next": torch.from_numpy(random.integers(0, ITEMS, count)),
        "negative": torch.from_numpy(random.integers(0, ITEMS, config.negatives)),
    }


def objective(model: type[SasRec], config: SasRecConfig) -> SasRecObjective:
    """A model and its loss."""
    torch.manual_seed(0)
    return SasRecObjective(model(ITEMS, config), config)


def step(trained: SasRecObjective, batch: dict[str, torch.Tensor]) -> None:
    """Forward and backward."""
    trained.zero_grad(set_to_none=True)
    trained(batch)["total"].backward()


def bare(trained: SasRecObjective, batch: dict[str, torch.Tensor]) -> Callable[[], object]:
    """The matrix products of a step, and nothing else."""
    with ProductRecorder() as recorder:
        step(trained, batch)
    return products(recorder.products, torch.device("cpu"))


def timed(work: Callable[[], object], tokens: int) -> harness.Contender:
    """Seconds, and real tokens per processor second."""
    run = harness.timed(work)

    def with_tokens() -> harness.Numbers:
        numbers = run()
        return {**numbers, "tokens_per_s": tokens / numbers["cpu_s"]}

    return with_tokens


if __name__ == "__main__":
    main()
