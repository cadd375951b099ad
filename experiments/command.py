"""`derm experiment`: run the variants of an experiment, seed by seed, and write its report.

Finished runs are kept in `<out>/<name>.json` and not run again, so that an interrupted experiment
continues. Needs no home: every run makes a world of its own, and removes it.
"""

import argparse
import dataclasses
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from experiments.references import REFERENCES
from experiments.report import render
from experiments.upstream import BASELINE, VARIANTS, Run, Size, Variant, run
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import ContractViolation, InputError
from jobs.cli import out
from jobs.datasets.registry import dataset_spec
from jobs.engine.manifests import write_atomic
from jobs.settings import Settings
from simulator.worlds import SIMULATED

log = logging.getLogger("derm")

_SIZE = Size()

Task = tuple[Variant, int, Upstream]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm experiment`."""
    upstreams = [u.name for u in dataset_spec(SIMULATED, "").declared_upstreams]
    parser.add_argument("name", choices=("upstream",), help="which experiment")
    parser.add_argument("--seeds", type=int, default=5, help="worlds per variant; default: 5")
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        choices=[v.name for v in VARIANTS[1:]],
        metavar="NAME",
        help="compare only this one with the baseline; repeatable; default: all",
    )
    parser.add_argument(
        "--upstream", choices=upstreams, default=upstreams[0], help=f"default: {upstreams[0]}"
    )
    parser.add_argument("--recipe", default=_SIZE.recipe, help="world and model; default: toy")
    parser.add_argument("--window", type=int, default=_SIZE.window, help="days from scratch")
    parser.add_argument("--days", type=int, default=_SIZE.days, help="days that are measured")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="default: here")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once")


def main(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's
    """Run what is missing, then render.

    Raises:
        InputError: a number is not positive, or the results there are of other sizes.
    """
    for name in ("seeds", "window", "days", "processes"):
        if getattr(args, name) < 1:
            raise InputError(
                f"--{name} must be positive", expected=">= 1", found=getattr(args, name)
            )
    size = Size(recipe=args.recipe, window=args.window, days=args.days)
    file = args.out / f"{args.name}-{args.upstream}.json"
    runs = load(file, size)
    done = {(r.variant, r.seed) for r in runs}
    chosen = [v for v in VARIANTS if not args.variants or v.name in (BASELINE.name, *args.variants)]
    tasks = [
        (variant, seed, args.upstream)
        for seed in range(args.seeds)
        for variant in chosen
        if (variant.name, seed) not in done
    ]
    for number, finished in enumerate(_carry_out(tasks, size, args.processes), 1):
        runs += finished
        save(file, size, runs)
        log.info("%d of %d: %s, seed %d", number, len(tasks), finished[0].variant, finished[0].seed)
    report = render(runs, chosen, size, args.upstream, args.seeds)
    for name, text in report.files.items():
        write_atomic(args.out / name, text)
    if args.json:
        out(json.dumps(report.numbers))
    else:
        out(report.summary)
        out(f"written: {', '.join(str(args.out / name) for name in report.files)}")
    return 0


def load(file: Path, size: Size) -> list[Run]:
    """The runs that are there already.

    Raises:
        InputError: they are of another size.
        ContractViolation: the file cannot be read back.
    """
    if not file.exists():
        return []
    try:
        saved = json.loads(file.read_text())
        found = Size(**saved["size"])
        runs = [Run(**r | {"days": tuple(r["days"])}) for r in saved["runs"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ContractViolation(
            "the results of an experiment cannot be read back",
            where=str(file),
            expected="what `derm experiment` wrote",
            found=repr(error),
            hint="remove the file; its runs will be made again",
        ) from error
    if found != size:
        raise InputError(
            "the results that are there are of another size",
            where=str(file),
            expected=str(size),
            found=str(found),
            hint="name another --out",
        )
    return runs


def save(file: Path, size: Size, runs: list[Run]) -> None:
    """Write the runs in an order that does not depend on who finished first."""
    names = (*REFERENCES, *(v.name for v in VARIANTS))
    ordered = sorted(runs, key=lambda r: (r.seed, names.index(r.variant)))
    lines = ",\n".join(json.dumps(_rounded(r)) for r in ordered)
    text = f'{{"size": {json.dumps(dataclasses.asdict(size))}, "runs": [\n{lines}\n]}}\n'
    write_atomic(file, text)


def _rounded(finished: Run) -> dict[str, object]:
    days = [{name: round(value, 6) for name, value in day.items()} for day in finished.days]
    return dataclasses.asdict(finished) | {"days": days}


def _carry_out(tasks: list[Task], size: Size, processes: int) -> Iterator[list[Run]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, max(len(tasks), 1)), mp_context=context) as pool:
        running = [pool.submit(run, *task, size) for task in tasks]
        for future in as_completed(running):
            yield future.result()
