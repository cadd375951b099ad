"""Write the buckets of a slot, several at once, recording each one that is done.

Threads, not processes: all the work on a row happens inside NumPy, Arrow and the socket, which
let go of the interpreter, so two writers keep one Redis server busy without the cost of starting
processes, and nothing outlives a publish that is killed.
"""

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from feature_store.config import PublishingConfig
from feature_store.online.slots import BucketFiles, SlotWrite, write_bucket
from feature_store.online.store import (
    BucketDone,
    OnlineStore,
    SlotState,
    open_store,
    put_slot_state,
)
from jobs.progress import RowProgress

_MAX_WRITERS = 8


def write_buckets(
    url: str,
    config: PublishingConfig,
    plan: SlotWrite,
    buckets: Sequence[BucketFiles],
    state: SlotState,
    threads: int,
    log: logging.Logger,
) -> SlotState:
    """Write the buckets that are not done yet; the slot's state records each as it ends.

    Args:
        threads: buckets written at once; 0 means as many as there are cores.

    Returns:
        The state with every bucket done.

    Raises:
        StoreError: the store refused; buckets that are done stay recorded.
    """
    left = [b for b in buckets if str(b.bucket) not in state.done]
    writers = max(min(threads or os.cpu_count() or 1, len(left), _MAX_WRITERS), 1)
    store, stop = open_store(url, config), threading.Event()
    rows = state.users * len(left) // max(len(buckets), 1)
    with (
        RowProgress(rows, f"publish {plan.prefix}", log) as progress,
        ThreadPoolExecutor(writers) as pool,
    ):

        def write(files: BucketFiles) -> tuple[int, BucketDone]:
            return files.bucket, write_bucket(store, plan, files, progress.add, stop)

        futures: list[Future[tuple[int, BucketDone]]] = [pool.submit(write, b) for b in left]
        try:
            for future in as_completed(futures):
                state = _record(store, plan.prefix, state, *future.result())
        except BaseException:
            # One refusal is enough: the others stop at their next batch instead of going on.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return state


def _record(
    store: OnlineStore, prefix: str, state: SlotState, bucket: int, done: BucketDone
) -> SlotState:
    state = state.model_copy(update={"done": {**state.done, str(bucket): done}})
    put_slot_state(store, prefix, state)
    return state
