"""Batches read ahead by a thread, and moved to the device."""

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping

import numpy.typing as npt
import torch
from torch import Tensor

_END = object()


def to_device(
    arrays: Iterable[Mapping[str, npt.NDArray]], device: torch.device, *, ahead: int
) -> Iterator[dict[str, Tensor]]:
    """Turn NumPy batches into tensors on `device`.

    Args:
        ahead: batches prepared by a thread while the last one is computed on; 0 for no thread.
    """
    pinned = device.type == "cuda"
    tensors = (_tensors(batch, pinned=pinned) for batch in arrays)
    for batch in _ahead(tensors, ahead) if ahead else tensors:
        yield {k: v.to(device, non_blocking=pinned) for k, v in batch.items()}


def _tensors(batch: Mapping[str, npt.NDArray], *, pinned: bool) -> dict[str, Tensor]:
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    return {k: v.pin_memory() for k, v in tensors.items()} if pinned else tensors


def _ahead(batches: Iterator[dict[str, Tensor]], depth: int) -> Iterator[dict[str, Tensor]]:
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(_END)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
