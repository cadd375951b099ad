"""An optimizer's state after a round trip through its tensors: as torch's own loading leaves it."""

import copy

import pytest
import torch
from torch import nn

from models.training.checkpoint import load_optimizer, optimizer_tensors
from models.training.loop import make_optimizer


def fresh(device: str = "cpu") -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).to(device)
    return module, make_optimizer(module, 1e-3, 0.01)


def step(module: nn.Module, optimizer: torch.optim.AdamW, seed: int) -> None:
    optimizer.zero_grad()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    module(x).square().sum().backward()
    optimizer.step()


def test_a_restored_optimizer_takes_the_same_steps():
    module, optimizer = fresh()
    for seed in range(3):
        step(module, optimizer, seed)
    restored = copy.deepcopy(module)
    again = make_optimizer(restored, 1e-3, 0.01)
    saved = {k: v.clone() for k, v in optimizer_tensors(optimizer, module).items()}
    load_optimizer(again, restored, saved)
    for seed in range(3, 6):
        step(module, optimizer, seed)
        step(restored, again, seed)
    for mine, other in zip(module.parameters(), restored.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_state_lies_where_torch_puts_it(device):
    """`meta` stands for a GPU: the fused kernel wants its step counter beside the parameter."""
    module, optimizer = fresh()
    step(module, optimizer, 0)
    (elsewhere, ours), (_, theirs) = fresh(device), fresh(device)
    load_optimizer(ours, elsewhere, optimizer_tensors(optimizer, module))
    theirs.load_state_dict(optimizer.state_dict())
    expected = theirs.state_dict()["state"]
    found = ours.state_dict()["state"]
    assert found.keys() == expected.keys()
    for index, state in expected.items():
        assert found[index].keys() == state.keys()
        for name, value in state.items():
            assert found[index][name].device == value.device
            assert found[index][name].dtype == value.dtype
            if device == "cpu":
                assert torch.equal(found[index][name], value)
