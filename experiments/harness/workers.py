"""Cells at once, in processes that end with their parent, however that ends."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import cast

from experiments.harness.design import Cell, Design, Measured
from experiments.harness.registry import Chosen, load
from feature_store.contracts.errors import DermError, InputError

_GRACE_S = 10.0

Made = dict[str, Measured]
Place = tuple[str, str, int]


@dataclass(kw_only=True, slots=True)
class _Worker:
    """One process, and what it is at."""

    process: BaseProcess
    pipe: Connection
    cell: Cell | None = None


def carry_out(chosen: Chosen, cells: list[Cell], processes: int) -> Iterator[tuple[Cell, Made]]:
    """Run cells and hand each over when it has run; one process runs them here, in order.

    A process stays with a data set and a seed while there are cells of it, so that what it has read
    or simulated serves the next variant.

    Raises:
        DermError: a cell failed, or its process was killed; what runs beside it is stopped.
    """
    design = load(chosen)
    if min(processes, len(cells)) < 2:
        for cell in cells:
            yield cell, dict(design.run(cell))
        return
    workers = [_start(chosen) for _ in range(min(processes, len(cells)))]
    waiting = list(cells)
    try:
        for worker in workers:
            _hand_out(worker, waiting, workers)
        while busy := [w for w in workers if w.cell]:
            ready = wait([w.pipe for w in busy])
            for worker in (w for w in busy if w.pipe in ready):
                finished = _received(worker)
                _hand_out(worker, waiting, workers)
                yield finished
    finally:
        _stop(workers)


def _hand_out(worker: _Worker, waiting: list[Cell], workers: list[_Worker]) -> None:
    """Give a worker its next cell: of its own world, else of one that nobody is in."""
    last, worker.cell = worker.cell, None
    if not waiting:
        return
    taken = {_world(w.cell) for w in workers if w.cell}
    mine = [c for c in waiting if last and _world(c) == _world(last)]
    free = [c for c in waiting if _world(c) not in taken]
    worker.cell = (mine or free or waiting)[0]
    waiting.remove(worker.cell)
    worker.pipe.send((worker.cell.data, worker.cell.variant.name, worker.cell.seed))


def _world(cell: Cell) -> tuple[str, int]:
    return cell.data, cell.seed


def _received(worker: _Worker) -> tuple[Cell, Made]:
    cell = cast("Cell", worker.cell)
    try:
        made, failed, wrong_request = worker.pipe.recv()
    except EOFError as error:
        worker.process.join(_GRACE_S)
        raise DermError(
            "a process of the experiment was killed",
            where=str(cell),
            found=f"exit code {worker.process.exitcode}",
            hint="is there memory for so many --processes? run it again: finished cells are kept",
        ) from error
    if failed:
        raise (InputError if wrong_request else DermError)(
            "a cell of the experiment failed", where=str(cell), found=failed
        )
    return cell, made


def _start(chosen: Chosen) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(chosen, there), name="experiment", daemon=True)
    process.start()
    there.close()
    return _Worker(process=process, pipe=here)


def _stop(workers: list[_Worker]) -> None:
    """Ask every process to end, and end those that do not."""
    for worker in workers:
        worker.pipe.close()
        if worker.cell and worker.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGINT)
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(chosen: Chosen, pipe: Connection) -> None:
    """In the process: run what comes until nothing does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Asked to end: leave through here, so that temporary folders go.
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        design = load(chosen)
        while True:
            data, name, seed = pipe.recv()
            pipe.send(_made(design, (data, name, seed)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _made(design: Design, place: Place) -> tuple[Made, str, bool]:
    data, name, seed = place
    variant = next(v for v in design.variants if v.name == name)
    try:
        return dict(design.run(Cell(data=data, variant=variant, seed=seed))), "", False
    except DermError as error:
        return {}, str(error), isinstance(error, InputError)
    except Exception:
        return {}, traceback.format_exc(), False


def _end_with_parent() -> None:
    """When the parent is gone, killed or not, tidy up; whoever does not manage is ended."""
    parent = cast("BaseProcess", multiprocessing.parent_process())
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_S)
    os._exit(1)
