"""Weights, optimizer state and counters as safetensors: no pickle, ever."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def module_tensors(module: nn.Module) -> Tensors:
    """Parameters and buffers by name, on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that it is either whole or absent."""
    draft = path.with_name(f".{path.name}.draft")
    save_file(tensors, draft, metadata)
    draft.replace(path)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
