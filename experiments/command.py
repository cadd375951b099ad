"""`derm experiment`: run the cells of an experiment that are missing, and write its report.

Finished cells are kept in `<out>/<name>.json` and not run again, so that an interrupted experiment
continues. Needs no home: a cell makes what it needs, and removes it.
"""

import argparse
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from experiments.harness.design import Cell, Design
from experiments.harness.registry import EXPERIMENTS, Chosen, load
from experiments.harness.report import render
from experiments.harness.results import Results
from experiments.harness.workers import carry_out
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.errors import InputError
from jobs.console import out
from jobs.settings import Settings

log = logging.getLogger("derm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm experiment`."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME|FILE.py",
        help="which experiment, or a file that is one; without it, those that there are",
    )
    parser.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the experiment; repeatable; a wrong one is told which there are",
    )
    parser.add_argument("--seeds", type=int, default=5, help="per variant; default: 5")
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        metavar="NAME",
        help="compare only this one with the baseline; repeatable; default: all",
    )
    parser.add_argument(
        "--data", action="append", metavar="NAME", help="only on this; repeatable; default: all"
    )
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="default: here")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and stop")


def main(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's
    """Run what is missing, then render.

    Raises:
        InputError: there is no such experiment, option, variant or data set; a number is not
            positive; the results there are of other settings.
        DermError: a cell failed.
    """
    if args.name is None:
        known = {name: what for name, (_, what) in EXPERIMENTS.items()}
        lines = [json.dumps(known)] if args.json else [f"{n}: {what}" for n, what in known.items()]
        for line in lines:
            out(line)
        return 0
    for name in ("seeds", "processes"):
        if getattr(args, name) < 1:
            raise InputError(
                f"--{name} must be positive", expected=">= 1", found=getattr(args, name)
            )
    chosen = Chosen(name=args.name, options=tuple(_split(text) for text in args.options))
    design = load(chosen)
    variants = _some("variant", args.variants, [v.name for v in design.variants])
    data = _some("data", args.data, list(design.data))
    shown = design.chosen(variants=variants, data=data)
    cells = list(shown.cells(args.seeds))
    results = Results(args.out, design)
    missing = results.missing(cells)
    if args.dry_run:
        _say_what_would_run(design, missing, len(cells), as_json=args.json)
        return 0
    if missing:
        with results.alone(), _stoppable():
            _run(chosen, results, missing, args.processes)
    report = render(shown, results.of(cells), args.seeds, plan=design.plan())
    for name, text in report.files.items():
        write_atomic(args.out / name, text)
    if args.json:
        out(json.dumps(report.numbers))
    else:
        out(report.summary)
        out(f"written: {', '.join(str(args.out / name) for name in report.files)}")
    return 0


def _run(chosen: Chosen, results: Results, missing: list[Cell], processes: int) -> None:
    began = time.monotonic()
    for number, (cell, rows) in enumerate(carry_out(chosen, missing, processes), 1):
        results.add(cell, rows)
        spent = time.monotonic() - began
        left = spent / number * (len(missing) - number)
        log.info("%d of %d: %s; about %.0f s left", number, len(missing), cell, left)


def _say_what_would_run(design: Design, missing: list[Cell], cells: int, *, as_json: bool) -> None:
    told: dict[str, Any] = {
        "plan": design.plan(),
        "cells": cells,
        "missing": [str(cell) for cell in missing],
        "hypotheses": [h.says for h in design.hypotheses],
    }
    if as_json:
        out(json.dumps(told))
        return
    out(f"plan {told['plan']}: {len(missing)} of {cells} cells are to be run")
    for line in (*(f"expected: {says}" for says in told["hypotheses"]), *told["missing"]):
        out(f"  {line}")


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError("--set takes an option and a value", expected="OPTION=VALUE", found=text)
    return name, value


def _some(what: str, wanted: list[str] | None, known: list[str]) -> tuple[str, ...]:
    for name in wanted or ():
        if name not in known:
            expected = " | ".join(known)
            raise InputError(f"--{what} names what there is not", expected=expected, found=name)
    return tuple(wanted or known)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the command the way Ctrl-C does: with its processes."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, _leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
