"""What surrounds training: reading, what settings change, how much memory it takes.

    python -m benchmarks.pipeline.train --json train.json
    python -m benchmarks.pipeline.train --recipe small --batch 1024 --json train.json

How fast a step is against the matrix products in it: `floor.py` beside this. The data is a toy day
of the simulated world in a temporary lake, thirty days after the world began, so that sequences are
as long as they get. Numbers come from alternating rounds on the same threads; medians are reported.

`saving` compares the forward passes of inference: one per distinct entity (ours), one per last
row (the same, since features are as of the start of the day), one per event. `memory` is the peak
of training processes over days of different numbers and sizes, which another process wrote.
`settings` is how much faster (or slower) a pass over rows of the lake is with one setting changed,
compilation not counted.
"""

import argparse
import dataclasses
import itertools
import json
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from feature_store.contracts.base import days_between, shift_day
from feature_store.lake.lake import Lake
from feature_store.reading.counts import Counting
from feature_store.reading.examples import DayExamples, Order
from feature_store.spark.tasks import run_here
from jobs.engine.runner import open_context
from jobs.recipes import Recipe, recipe
from jobs.settings import Home, Settings
from jobs.steps.count import count_day
from models.derm.features import ModelInputs
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.training.determinism import make_deterministic, seed_torch, torch_device
from models.training.loop import Trainer
from simulator.market.config import SIMULATED
from simulator.spec import world_spec
from simulator.world import World

FIRST = "2025-03-01"
AGE_DAYS = 30
STEPS = 8
# Days larger than a chunk of the recipe: what grows with rows shows, what is bounded does not.
MEMORY_CASES = ((1, 8), (3, 8), (1, 24))
CHANGES: dict[str, dict[str, Any]] = {
    "precision=bfloat16": {"precision": "bfloat16"},
    "compile=True": {"compile": True},
    "prefetch_batches=0": {"prefetch_batches": 0},
}
GPU_CHANGES = {**CHANGES, "tf32=False": {"tf32": False}}


class Bench:
    """One recipe on one day of the simulated world."""

    def __init__(self, chosen: Recipe, root: Path, device: torch.device) -> None:
        self.recipe, self.root, self.device = chosen, root, device
        self.spec = world_spec(chosen.simulation)
        self.lake = Lake(root / "lake")
        Home(dataset=SIMULATED, recipe=chosen.name, first_ds=FIRST, start_ds=FIRST).save(root)

    def write_days(self, count: int, copies: int = 1) -> list[str]:
        """Write days, each with its events repeated `copies` times, and the counts before them."""
        world = World(self.recipe.simulation, 0, shift_day(FIRST, -AGE_DAYS))
        days = days_between(FIRST, shift_day(FIRST, count))
        tables = (self.spec.events_table(), self.spec.users_table(), self.spec.pins_table())
        for ds in days:
            day = world.day(ds)
            events = day.events.take(np.tile(np.arange(day.events.num_rows), copies))
            for table, data in zip(tables, (events, day.users, day.pins), strict=True):
                self.lake.overwrite(table, ds, data)
            count_day(open_context(Settings(home=self.root), ds), run_here)
        return list(days[1:])

    @property
    def counting(self) -> Counting:
        """How counts become features."""
        return Counting(smoothing=self.recipe.counting.smoothing, first_ds=FIRST)

    def trainer(self, examples: DayExamples, **changes: Any) -> Trainer:
        """A fresh trainer, with settings that differ from the recipe's."""
        seed_torch(0)
        objective = DermObjective(DermModel(ModelInputs.of(self.spec, "ctr"), self.recipe.model))
        return Trainer(
            objective,
            dataclasses.replace(self.recipe.training, **changes),
            self.device,
            learning_rate=1e-3,
            empty=examples.empty(),
        )

    def examples(self, ds: str) -> DayExamples:
        """The day's examples."""
        return DayExamples(self.lake, self.spec, ds, "ctr", self.counting)

    def order(self, **changes: Any) -> Order:
        """The order of training, with fields that differ from it."""
        training = self.recipe.training
        order = Order(
            batch_rows=training.batch_rows,
            chunk_rows=training.shuffle_rows,
            together=training.together,
            seed=1,
            random_pins=self.recipe.model.loss.random_negatives,
        )
        return dataclasses.replace(order, **changes)


def main() -> None:
    """Measure, and write the report."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--recipe", default="toy")
    parser.add_argument("--batch", type=int, help="rows of a step; default: the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--memory", nargs=2, type=int, metavar=("DAYS", "COPIES"))
    args = parser.parse_args()
    logging.disable(logging.INFO)
    make_deterministic(threads=args.threads)
    chosen = recipe(args.recipe)
    if args.batch:
        training = dataclasses.replace(chosen.training, batch_rows=args.batch)
        chosen = dataclasses.replace(chosen, training=training)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(chosen, Path(folder), torch_device(args.device))
        if args.memory:
            print(json.dumps(peak_memory(bench, *args.memory)))
            return
        result = {**setting(args), **measure(bench, args.rounds), "memory": memory_cases(args)}
    harness.report(result, args)


def measure(bench: Bench, rounds: int) -> dict:
    """Reading, the saving of one embedding a day, and the settings."""
    (ds,) = bench.write_days(1)
    examples = bench.examples(ds)
    trainer = bench.trainer(examples)
    return {
        "read_rows_per_s": reading(examples, bench.order()),
        "saving": saving(trainer, examples, rounds),
        "settings": settings(bench, examples, rounds),
        "parameters": sum(p.numel() for p in trainer.objective.parameters()),
    }


def seconds_of(works: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each work."""
    contenders = {name: harness.timed(work) for name, work in works.items()}
    found = harness.summary(harness.alternate(contenders, rounds))
    return {name: numbers["wall_s"] for name, numbers in found.items()}


def reading(examples: DayExamples, order: Order) -> float:
    """Rows a second of reading, joining and batching alone."""
    started = time.perf_counter()
    rows = sum(len(b["ts"]) for b in examples.batches(order))
    return rows / (time.perf_counter() - started)


def saving(trainer: Trainer, examples: DayExamples, rounds: int) -> dict[str, float]:
    """Forward passes of the user tower: one per event, and one per distinct user."""
    (batch,) = examples.batches(Order(batch_rows=10**9, distinct=False))
    first = np.unique(batch["key:user"], return_index=True)[1]
    last = {k: v[first] for k, v in batch.items()}

    def embed(arrays: dict) -> Callable[[], None]:
        return lambda: (
            [
                trainer.embed({k: v[i : i + 1024] for k, v in arrays.items()})
                for i in range(0, len(arrays["ts"]), 1024)
            ]
            and None
        )

    found = seconds_of({"every": embed(batch), "last": embed(last)}, rounds)
    times_faster = found["every"] / found["last"]
    return {"events": len(batch["ts"]), "users": len(first), "times_faster": times_faster}


def settings(bench: Bench, examples: DayExamples, rounds: int) -> dict[str, float]:
    """Seconds of a pass as the recipe has it over seconds with one setting changed."""
    changes = GPU_CHANGES if bench.device.type == "cuda" else CHANGES
    trainers = {n: bench.trainer(examples, **c) for n, c in {"plain": {}, **changes}.items()}

    def a_pass(trainer: Trainer) -> Callable[[], None]:
        def run() -> None:
            # One switch for the whole process.
            torch.backends.cuda.matmul.allow_tf32 = trainer.config.tf32
            trainer.train(itertools.islice(examples.batches(bench.order()), STEPS), seed=(1,))

        return run

    found = seconds_of({name: a_pass(trainer) for name, trainer in trainers.items()}, rounds)
    return {name: found["plain"] / found[name] for name in changes}


def memory_cases(args: argparse.Namespace) -> list[dict]:
    """Peak memory over (days, size of a day), each in a process of its own."""
    found = []
    for days, copies in MEMORY_CASES:
        command = [sys.executable, "-m", __spec__.name, "--recipe", args.recipe, "--threads"]
        command += [str(args.threads), "--memory", str(days), str(copies)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(result.stdout))
    return found


def peak_memory(bench: Bench, num_days: int, copies: int) -> dict:
    """Train on days that another process wrote; the most this one held, in MB, and when."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        days = pool.submit(bench.write_days, num_days, copies).result()
    start_mb = peak_mb()
    trainer, first_mb, rows = None, 0.0, 0
    for ds in days:
        examples = bench.examples(ds)
        if trainer is None:
            trainer = bench.trainer(examples)
            trainer.train(itertools.islice(examples.batches(bench.order()), 2), seed=(1,))
            first_mb = peak_mb()
        rows += trainer.train(examples.batches(bench.order()), seed=(1,)).rows
    return {
        "days": num_days,
        "rows": rows,
        "start_mb": start_mb,
        "two_steps_mb": first_mb,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """The most this program ever held; getrusage would begin with what its parent held."""
    status = Path("/proc/self/status").read_text()
    (line,) = (x for x in status.splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def setting(args: argparse.Namespace) -> dict:
    """What was measured, and with what."""
    return {
        "recipe": args.recipe,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
