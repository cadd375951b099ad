"""How fast training and inference are, against the matrix products that they cannot do without.

    python -m benchmarks.pipeline.floor --json floor.json
    python -m benchmarks.pipeline.floor --recipe small --home /tmp/small --json floor.json

A floor is the matrix products of one real pass, recorded by shape and precision and run bare: what
would be left if reading, attention, normalisation, optimizer and Python cost nothing. A pass and
its floor alternate; medians are reported, of processor seconds on one thread of a CPU, else of the
clock's.

Reading the same rows in another way changes the floor itself, so three ways are compared: `rows`
embeds a user and a Pin for every row, `distinct` (the pipeline's) once in a batch, `together` also
leaves up to eight rows of a user side by side. `ratio` is of a way's own floor; `fixed_work` is
the floor of `rows` over the time of a way, the same work for all of them.
"""

import argparse
import dataclasses
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import harness
from benchmarks.pipeline.train import FIRST, Bench
from feature_store.contracts.base import shift_day
from feature_store.reading.examples import Arrays
from jobs.recipes import Recipe, recipe
from models.training.determinism import make_deterministic, torch_device
from models.training.prefetch import to_device
from simulator import config as worlds

DAY = shift_day(FIRST, 1)
WAYS: dict[str, dict[str, Any]] = {
    "rows": {"distinct": False},
    "distinct": {},
    "together": {"together": 8},
}
Product = tuple[int, int, int, torch.dtype]


class ProductRecorder(TorchDispatchMode):
    """Records every matrix product, forward and backward, and counts all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.operations += 1
        name = func.__name__.split(".")[0]
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            self.products.append((*left.shape, right.shape[1], left.dtype))
        elif name == "bmm":
            count, rows, inner = args[0].shape
            self.products += [(rows, inner, args[1].shape[2], args[0].dtype)] * count
        return func(*args, **(kwargs or {}))


def main() -> None:
    """Measure, and write the report."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--recipe", default="toy")
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=0, help="default: about 8,192 rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--home", type=Path, help="where the days are kept for another run")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    make_deterministic(threads=args.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = args.home or Path(folder)
        bench = Bench(chosen_recipe(args), root, torch_device(args.device))
        if not (root / "lake" / "users" / f"ds={DAY}").exists():
            bench.write_days(1)
        result = measure(bench, args)
    harness.report(result, args)


def chosen_recipe(args: argparse.Namespace) -> Recipe:
    """The recipe, on a world as large as it is meant for, without minutes of compiling."""
    chosen = recipe(args.recipe)
    training = dataclasses.replace(chosen.training, compile=False)
    if args.precision:
        training = dataclasses.replace(training, precision=args.precision)
    world = worlds.toy() if chosen.name == "toy" else worlds.small()
    return dataclasses.replace(chosen, training=training, simulation=world)


def measure(bench: Bench, args: argparse.Namespace) -> dict:
    """Every way of training, and inference, against its floor."""
    training = bench.recipe.training
    steps = args.steps or max(1, 8192 // training.batch_rows)
    batches = {
        way: list(itertools.islice(bench.examples(DAY).batches(bench.order(**changes)), steps))
        for way, changes in WAYS.items()
    }
    trainer = bench.trainer(bench.examples(DAY))
    works: dict[str, Callable[[], object]] = {
        f"training, {way}": lambda found=found: trainer.train(found, seed=(1,))
        for way, found in batches.items()
    }
    works["inference"] = lambda: embed(bench, trainer.objective.model.eval(), batches["distinct"])
    clock = "cpu_s" if training_on_one_thread(bench) else "wall_s"
    rows = sum(len(b["ts"]) for b in batches["rows"])
    found = {name: contender(work, bench, args.rounds, clock, rows) for name, work in works.items()}
    plain_s = found["training, rows"]["floor_s"]
    for name, numbers in found.items():
        if name.startswith("training"):
            numbers["fixed_work"] = plain_s / numbers["seconds"]
    return {
        "recipe": bench.recipe.name,
        "precision": training.precision,
        "batch_rows": training.batch_rows,
        "steps": steps,
        "entities": {w: [len(b[0]["tenure_days"]), len(b[0]["price"])] for w, b in batches.items()},
        "device": str(bench.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "contenders": found,
        "profile": {w: profiled(works[f"training, {w}"]) for w in ("rows", "distinct")},
    }


def training_on_one_thread(bench: Bench) -> bool:
    """Whether processor seconds are the seconds of the work."""
    return bench.device.type == "cpu" and torch.get_num_threads() == 1


def contender(
    work: Callable[[], object],
    bench: Bench,
    rounds: int,
    clock: str,
    rows: int,
) -> dict[str, float]:
    """One way of working and its floor in alternating rounds."""
    with ProductRecorder() as recorder:
        work()
    floor = products(recorder.products, bench.device)
    settle = torch.cuda.synchronize if bench.device.type == "cuda" else None
    pair = {"ours": work, "floor": floor}
    timed = {name: harness.timed(run, settle=settle) for name, run in pair.items()}
    found = harness.summary(harness.alternate(timed, rounds))
    ours_s, floor_s = found["ours"][clock], found["floor"][clock]
    return {
        "seconds": ours_s,
        "floor_s": floor_s,
        "rows_per_s": rows / ours_s,
        "ratio": floor_s / ours_s,
        "gflop": sum(2 * a * b * c for a, b, c, _ in recorder.products) / 1e9,
        "operations": recorder.operations,
    }


def products(found: list[Product], device: torch.device) -> Callable[[], None]:
    """The same matrix products and nothing else."""
    operands = {
        (rows, inner, columns, kind): (
            torch.randn(rows, inner, device=device).to(kind),
            torch.randn(inner, columns, device=device).to(kind),
        )
        for rows, inner, columns, kind in set(found)
    }

    def run() -> None:
        for product in found:
            torch.mm(*operands[product])

    return run


@torch.no_grad()
def embed(bench: Bench, model: Any, batches: list[Arrays]) -> None:
    """What `derm infer` computes: both entity towers, each distinct entity once."""
    for batch in moved(bench, batches):
        for entity in ("user", "pin"):
            model.embed(entity, batch)


def moved(bench: Bench, batches: list[Arrays]) -> Iterator[dict[str, torch.Tensor]]:
    """The batches on the device."""
    return to_device(batches, bench.device, ahead=0)


def profiled(work: Callable[[], object]) -> dict[str, float]:
    """Share of the time of each operator, its own time only, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as result:
        work()
    events = result.key_averages()
    total = sum(e.self_cpu_time_total for e in events)
    top = sorted(events, key=lambda e: -e.self_cpu_time_total)[:12]
    return {e.key: round(e.self_cpu_time_total / total, 4) for e in top}


if __name__ == "__main__":
    main()
