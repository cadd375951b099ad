"""Same inputs, same seed, same bits.

On a CPU the bits also depend on the number of threads, since a sum over threads has another order;
on a GPU deterministic kernels are asked for, at some cost.
"""

import os
from typing import Literal

import numpy as np
import torch


def make_deterministic(*, threads: int = 0) -> None:
    """Ask torch for deterministic kernels and a fixed number of threads (0: all cores)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # `use_deterministic_algorithms` would do the same, and load the compiler: a second.
    torch.set_deterministic_debug_mode("error")
    # A help for finding reads of memory that nothing wrote; it writes every result twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads or os.cpu_count() or 1)


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that follows from its parts and from nothing else."""
    words = [w for part in parts for w in _words(part)]
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return (int(state[0]) << 31) ^ int(state[1])


def seed_torch(*parts: int | str) -> None:
    """Seed torch's generators from the parts."""
    torch.manual_seed(seed_for(*parts))


def torch_device(choice: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device a setting asks for; `auto` takes a GPU where there is one."""
    cuda = torch.cuda.is_available() if choice == "auto" else choice == "cuda"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def _words(part: int | str) -> list[int]:
    return [part] if isinstance(part, int) else [len(part), *part.encode()]
