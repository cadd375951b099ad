"""Weights, optimizer state and counters as safetensors: no pickle, ever."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def module_tensors(module: nn.Module) -> Tensors:
    """Parameters and buffers by name, on the CPU."""
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> Tensors:
    """The optimizer's state, named `<kind>/<parameter>`."""
    return {
        f"{kind}/{name}": value.detach().cpu().contiguous()
        for name, parameter in module.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put saved state back beside its parameter; parameters without saved state start afresh.

    `step` too: the fused AdamW keeps it on the parameter's device, unlike the plain one.
    """
    for name, parameter in module.named_parameters():
        state = {
            key.partition("/")[0]: value
            for key, value in tensors.items()
            if key.partition("/")[2] == name
        }
        if state:
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in state.items()}


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file so that it is either whole or absent."""
    draft = path.with_name(f".{path.name}.draft")
    save_file(tensors, draft, metadata)
    draft.replace(path)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
