"""How long a request takes: the program of a surface, the same model as it is, and its products.

    python -m benchmarks.ranking.serve --json serve.json

A request is a few users with as many candidates each, on the home feed of the market. `program` is
what an export holds, `eager` the module that it was made from; both say the same to the bit, which
is checked. `floor` is nothing but the matrix products of the pass, bare, on numbers of the same
shapes. One thread. Rounds are requests: `p50_ms` and `p99_ms` are of them.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import harness
from benchmarks.ranking.requests import SURFACE, new_ranker, rows_of
from models.nn.experts import ParallelLinear
from models.rankers.unified import artifact
from models.rankers.unified.program import SurfaceCalibration, SurfaceProgram
from models.rankers.unified.requests import Requests


def main() -> None:
    """Measure in turn, and write the report."""
    parser = harness.arguments(__doc__, rounds=50)
    parser.add_argument("--users", type=int, default=4, help="of a request; default: %(default)s")
    parser.add_argument("--candidates", type=int, default=128, help="of each")
    parser.add_argument("--history", type=int, default=256, help="elements of each")
    parser.add_argument("--width", type=int, default=32, help="of an element")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ranker = new_ranker(args.history, args.width)
    calibration = SurfaceCalibration(torch.tensor([[1.0, 0.0]] * len(ranker.inputs.tasks)))
    eager = SurfaceProgram(ranker, SURFACE, calibration)
    with tempfile.TemporaryDirectory() as folder:
        schema = artifact.schema_of(eager, "HF", ranker.inputs.tasks, {})
        artifact.write(Path(folder), eager, schema)
        program = artifact.load(Path(folder)).run
    batch = Requests(ranker.inputs, args.users).once(rows_of(ranker, args.users, args.candidates))
    users = {f.name: batch[f.name] for f in eager.users_read}
    rows = {"ts": batch["ts"]} | {f.name: batch[f.name] for f in eager.rows_read}
    shapes: list[tuple[int, int, int, int]] = []
    hooks = [
        module.register_forward_hook(lambda m, given, _: shapes.append(_product(m, given[0])))
        for module in eager.modules()
        if isinstance(module, nn.Linear | ParallelLinear)
    ]
    with torch.inference_mode():
        same = torch.equal(program(users, rows), eager(users, rows))
    for hook in hooks:
        hook.remove()
    contenders = {
        "program": _run(lambda: program(users, rows)),
        "eager": _run(lambda: eager(users, rows)),
        "floor": _run(_floor(shapes)),
    }
    found = harness.alternate(contenders, args.rounds, warm_up=3)
    medians = harness.against_floor(harness.summary(found), seconds="wall_s")
    count = args.users * args.candidates
    for name, rounds in found.items():
        wall = [1e3 * numbers["wall_s"] for numbers in rounds]
        medians[name] |= {
            "p50_ms": float(np.quantile(wall, 0.5)),
            "p99_ms": float(np.quantile(wall, 0.99)),
            "rows_per_s": 1e3 * count / float(np.quantile(wall, 0.5)),
        }
    sizes = {"users": args.users, "candidates": args.candidates, "history": args.history}
    harness.report({"contenders": medians, "same_bits": same, **sizes}, args)


def _run(work: Callable[[], object]) -> harness.Contender:
    def inside() -> None:
        with torch.inference_mode():
            work()

    return harness.timed(inside)


def _product(module: nn.Module, given: Tensor) -> tuple[int, int, int, int]:
    """Copies, rows, inputs and outputs of a product."""
    if isinstance(module, ParallelLinear):
        copies, inputs, outputs = module.weight.shape
        return copies, given.shape[-2], inputs, outputs
    if not isinstance(module, nn.Linear):
        raise TypeError(f"expected a linear module, found {type(module).__name__}")
    rows = given.numel() // module.in_features
    return 1, rows, module.in_features, module.out_features


def _floor(shapes: list[tuple[int, int, int, int]]) -> Callable[[], object]:
    pairs = [(torch.randn(k, b, i), torch.randn(k, i, o)) for k, b, i, o in shapes]
    return lambda: [torch.bmm(x, weight) for x, weight in pairs]


if __name__ == "__main__":
    main()
