"""Write the buckets of a slot, in this process or in several, recording each one that is done."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace

from feature_store.config import PublishingConfig
from feature_store.online import BucketDone, OnlineStore, SlotState, open_store, put_slot_state
from feature_store.slots import BucketFiles, SlotWrite, write_bucket
from jobs.progress import Progress

_ROWS_PER_PROCESS = 100_000
_MAX_PROCESSES = 8
_PR_SET_PDEATHSIG = 1


def write_buckets(
    url: str,
    config: PublishingConfig,
    store: OnlineStore,
    plan: SlotWrite,
    buckets: Sequence[BucketFiles],
    state: SlotState,
    threads: int,
    log: logging.Logger,
) -> SlotState:
    """Write the buckets that are not done yet; the slot's state records each as it ends.

    Returns:
        The state with every bucket done.

    Raises:
        StoreError: the store refused; buckets that are done stay recorded.
    """
    left = [b for b in buckets if str(b.bucket) not in state.done]
    rows = state.users * len(left) // max(len(buckets), 1)
    processes = min(
        threads or os.cpu_count() or 1, rows // _ROWS_PER_PROCESS + 1, len(left), _MAX_PROCESSES
    )
    with Progress(rows, f"publish {plan.prefix}", log) as progress:
        if processes > 1:
            finished = _in_processes(url, config, plan, left, processes, progress)
        else:
            finished = _in_order(store, plan, left, progress)
        for bucket, done in finished:
            state = state.model_copy(update={"done": {**state.done, str(bucket): done}})
            put_slot_state(store, plan.prefix, state)
    return state


def _in_order(
    store: OnlineStore, plan: SlotWrite, left: Sequence[BucketFiles], progress: Progress
) -> Iterator[tuple[int, BucketDone]]:
    for files in left:
        yield files.bucket, write_bucket(store, plan, files, progress.add)


def _in_processes(
    url: str,
    config: PublishingConfig,
    plan: SlotWrite,
    left: Sequence[BucketFiles],
    processes: int,
    progress: Progress,
) -> Iterator[tuple[int, BucketDone]]:
    # Forking a process that has threads (Arrow, Delta) can deadlock: spawn.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    shared = replace(config, bytes_per_s=config.bytes_per_s // processes)
    with ProcessPoolExecutor(
        processes, context, _start_worker, (url, shared, plan, counter, os.getpid())
    ) as pool:
        pending: set[Future[tuple[int, BucketDone]]] = {
            pool.submit(_write_in_worker, files) for files in left
        }
        try:
            while pending:
                ended, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                progress.set(counter.value)
                for future in ended:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_WORKER: dict[str, object] = {}


def _start_worker(
    url: str, config: PublishingConfig, plan: SlotWrite, counter: object, parent: int
) -> None:
    """Open this worker's own connection, and make it die with the publish that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    _WORKER.update(store=open_store(url, config), plan=plan, counter=counter)


def _write_in_worker(files: BucketFiles) -> tuple[int, BucketDone]:
    counter = _WORKER["counter"]

    def count(rows: int) -> None:
        with counter.get_lock():  # type: ignore[attr-defined]
            counter.value += rows  # type: ignore[attr-defined]

    store, plan = _WORKER["store"], _WORKER["plan"]
    return files.bucket, write_bucket(store, plan, files, count)  # type: ignore[arg-type]
