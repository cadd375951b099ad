"""The flat optimizer: the steps of torch's AdamW, and the same bits after a round trip."""

import copy
import math

import pytest
import torch
from torch import nn

from models.training.checkpoint import read_tensors, write_tensors
from models.training.optimizer import FlatAdamW


class Net(nn.Module):
    """A decayed weight, others, and a parameter that no step uses."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(3), nn.Linear(3, 4)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


def fresh() -> Net:
    torch.manual_seed(0)
    return Net()


def flat(module: nn.Module, max_norm: float = math.inf) -> FlatAdamW:
    return FlatAdamW(module, learning_rate=1e-2, weight_decay=0.1, max_norm=max_norm)


def backward(module: nn.Module, seed: int) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    module(x).square().sum().backward()


def steps(module: nn.Module, optimizer: FlatAdamW, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        backward(module, seed)
        optimizer.step()


@pytest.mark.parametrize("max_norm", [math.inf, 0.5])
def test_steps_equal_those_of_torch(max_norm):
    ours, theirs = fresh(), fresh()
    steps(ours, flat(ours, max_norm), range(4))
    linear = theirs.linear.weight
    others = [p for p in theirs.parameters() if p is not linear]
    groups = [{"params": [linear], "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    plain = torch.optim.AdamW(groups, lr=1e-2, fused=True)
    for seed in range(4):
        plain.zero_grad()
        backward(theirs, seed)
        nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        plain.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(ours.unused, torch.ones(2))


def test_a_restored_optimizer_takes_the_same_steps(tmp_path):
    module = fresh()
    optimizer = flat(module)
    steps(module, optimizer, range(3))
    restored = copy.deepcopy(module)
    write_tensors(tmp_path / "saved", optimizer.tensors())
    again = flat(restored)
    again.load(read_tensors(tmp_path / "saved")[0])
    steps(module, optimizer, range(3, 6))
    steps(restored, again, range(3, 6))
    for mine, other in zip(module.parameters(), restored.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_state_is_named_as_torch_names_it():
    """Snapshots outlive the code that wrote them."""
    module = fresh()
    optimizer = flat(module)
    assert optimizer.tensors() == {}
    steps(module, optimizer, range(2))
    found = optimizer.tensors()
    kinds = ("exp_avg", "exp_avg_sq", "step")
    named = dict(module.named_parameters())
    assert set(found) == {f"{kind}/{name}" for kind in kinds for name in named}
    for name, parameter in named.items():
        assert found[f"exp_avg/{name}"].shape == parameter.shape
        assert found[f"step/{name}"].item() == 2


def test_a_parameter_without_a_saved_state_starts_afresh():
    module = fresh()
    optimizer = flat(module)
    steps(module, optimizer, range(2))
    saved = {k: v for k, v in optimizer.tensors().items() if not k.endswith("/linear.bias")}
    again = flat(fresh())
    again.load(saved)
    found = again.tensors()
    assert not found["exp_avg/linear.bias"].any()
    assert torch.equal(found["exp_avg/linear.weight"], saved["exp_avg/linear.weight"])


def test_loading_weights_after_it_was_made_reaches_the_steps():
    source = fresh()
    steps(source, flat(source), range(3))
    module = fresh()
    optimizer = flat(module)
    module.load_state_dict(source.state_dict())
    before = copy.deepcopy(module.state_dict())
    optimizer.zero_grad()
    backward(module, 9)
    optimizer.step()
    moved = (module.linear.weight - before["linear.weight"]).abs().max()
    assert 0 < moved < 0.1


def test_state_lies_on_the_device_of_the_parameters():
    """`meta` stands for a GPU: the fused kernel wants its step counter beside the parameter."""
    module = fresh()
    optimizer = flat(module)
    steps(module, optimizer, range(1))
    elsewhere = flat(fresh().to("meta"))
    elsewhere.load(optimizer.tensors())
    states = [elsewhere._adamw.state[half] for half in elsewhere._flat]
    assert {x.device.type for state in states for x in state.values()} == {"meta"}
    assert {state["step"].dtype for state in states} == {torch.float32}
