"""The fused look-up: packed rows are gathered and widened block by block, never as a whole.

Two kernels behind one interface. NumPy's is there everywhere; torch's is compiled and 4 bits wide.
Shapes: R rows of a table, W bytes of a row, N rows asked for, D values of a row.
"""

import importlib.util
from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_store.contracts.errors import InputError
from feature_store.tables.rowwise import RowFormat

_BLOCK = 1024
_INT32_ROWS = 2**31 - 1


class Kernel(Protocol):
    """Widens some rows of a table."""

    def __call__(
        self, form: RowFormat, packed_RW: npt.NDArray[np.uint8], rows_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Values [N, D] of the rows with these numbers, which must be in 0 .. R - 1."""
        ...


def numpy_kernel(
    form: RowFormat, packed_RW: npt.NDArray[np.uint8], rows_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Gather a block of rows, widen it while it is in the cache."""
    values_ND = np.empty((len(rows_N), form.dim), np.float32)
    for start in range(0, len(rows_N), _BLOCK):
        stop = start + _BLOCK
        form.decode(packed_RW.take(rows_N[start:stop], axis=0), out=values_ND[start:stop])
    return values_ND


def torch_kernel(
    form: RowFormat, packed_RW: npt.NDArray[np.uint8], rows_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Torch's 4-bit embedding bag with a bag for each row; other widths by NumPy.

    The kernel for 32-bit row numbers is a third faster than the one for 64 bits, so tables of up to
    2^31 - 1 rows use that.
    """
    if form.bits != 4 or not len(rows_N):
        return numpy_kernel(form, packed_RW, rows_N)
    import torch
    from torch.utils.dlpack import from_dlpack

    kind = np.int32 if len(packed_RW) <= _INT32_ROWS else np.int64
    bags = torch.from_numpy(np.arange(len(rows_N), dtype=kind))
    rows = torch.from_numpy(rows_N.astype(kind))
    # By DLPack, because a mapped file is read-only.
    table = from_dlpack(packed_RW)
    found: npt.NDArray[np.float32] = torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
        table, rows, bags
    ).numpy()
    return found


KERNELS: dict[str, Kernel] = {"numpy": numpy_kernel, "torch": torch_kernel}


def kernel(name: str = "auto") -> Kernel:
    """A kernel by name; `auto` is torch's where torch is installed.

    Raises:
        InputError: there is no such kernel.
    """
    if name == "auto":
        name = "torch" if importlib.util.find_spec("torch") else "numpy"
    if name not in KERNELS:
        raise InputError("no such kernel", expected=" ".join(["auto", *KERNELS]), found=name)
    return KERNELS[name]
