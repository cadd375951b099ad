"""DHEN layers and the sequence encoder against the formulas, written again in NumPy and float64."""

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax

from models.nn.config import DhenConfig
from models.nn.dhen import DhenLayer
from models.nn.transformer import Padding, SequenceEncoder

TOLERANCE = 1e-5
D, TOKENS, ROWS = 8, 4, 3


def perturbed(module):
    """No parameter at its initial value: a norm's weight of 1 or a bias of 0 would hide a slip."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


class Weights:
    """Parameters by name below a prefix, as float64."""

    def __init__(self, module):
        self.of = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}

    def linear(self, name, x):
        return x @ self.of[f"{name}.weight"].T + self.of.get(f"{name}.bias", 0)

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def mix(self, name, x_BMD):
        return np.einsum("lm,bmd->bld", self.of[f"{name}.mix.weight"], x_BMD)

    def encoder(self, name, x_BTD, valid_BT, heads):
        x_BTD = x_BTD + self._attend(
            name, self.norm(f"{name}.norm_attention", x_BTD), valid_BT, heads
        )
        fed = self.linear(f"{name}.feed.0", self.norm(f"{name}.norm_feed", x_BTD))
        return x_BTD + self.linear(f"{name}.feed.3", fed * (1 + erf(fed / np.sqrt(2))) / 2)

    def _attend(self, name, x_BTD, valid_BT, heads):
        q, k, v = np.split(self.linear(f"{name}.qkv", x_BTD), 3, axis=-1)
        width = q.shape[-1] // heads
        parts = []
        for i in range(heads):
            part = slice(i * width, (i + 1) * width)
            scores_BTT = q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(width)
            scores_BTT = np.where(valid_BT[:, None, :], scores_BTT, -np.inf)
            parts.append(softmax(scores_BTT, axis=-1) @ v[..., part])
        return self.linear(f"{name}.project", np.concatenate(parts, axis=-1))

    def interaction(self, kind, name, x_BMD, tokens):
        """Tokens that a module of a DHEN layer makes."""
        flat, shape = x_BMD.reshape(len(x_BMD), -1), (len(x_BMD), tokens, D)
        if kind == "linear":
            return self.mix(f"{name}.mix", x_BMD)
        if kind == "mlp":
            hidden = self.linear(f"{name}.mlp.hidden.0", flat)
            hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
            return self.linear(f"{name}.mlp.output", hidden).reshape(shape)
        if kind == "mask":
            blocks = [self._mask(f"{name}.blocks.blocks.{i}", flat) for i in range(4)]
            return self.linear(f"{name}.project", np.concatenate(blocks, axis=1)).reshape(shape)
        every = np.ones(x_BMD.shape[:2], bool)
        return self.mix(f"{name}.mix", self.encoder(f"{name}.encoder", x_BMD, every, 1))

    def _mask(self, name, x):
        mask = self.linear(f"{name}.mask", np.maximum(self.linear(f"{name}.squeeze", x), 0))
        return np.maximum(self.norm(f"{name}.norm", self.linear(f"{name}.hidden", mask * x)), 0)


@pytest.mark.parametrize("in_tokens", [TOKENS, 3])
@pytest.mark.parametrize("modules", [("mask", "mlp"), ("transformer", "linear")])
@pytest.mark.parametrize("ensemble", ["concat", "sum", "weighted"])
def test_a_dhen_layer_equals_the_formula(ensemble, modules, in_tokens):
    config = DhenConfig(token_dim=D, num_tokens=TOKENS, layers=(modules,), ensemble=ensemble)
    layer = perturbed(DhenLayer(config, modules, in_tokens))
    x_BMD = torch.randn(ROWS, in_tokens, D)
    x, weights = x_BMD.double().numpy(), Weights(layer)
    share = TOKENS // 2 if ensemble == "concat" else TOKENS
    first, second = (
        weights.interaction(kind, f"interactions.{i}", x, share) for i, kind in enumerate(modules)
    )
    if ensemble == "concat":
        mixed = np.concatenate([first, second], axis=1)
    elif ensemble == "sum":
        mixed = first + second
    else:
        one, two = softmax(weights.of["weight"])
        mixed = one * first + two * second
    shortcut = x if in_tokens == TOKENS else weights.mix("shortcut", x)
    expected = weights.norm("norm", mixed + shortcut)
    np.testing.assert_allclose(layer(x_BMD).detach(), expected, atol=TOLERANCE)


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("length", [6, 4, 2])
def test_the_sequence_encoder_equals_the_formula(length, strip):
    encoder = perturbed(SequenceEncoder(D, 6, num_layers=2, num_heads=2, latest=3))
    x_BTD = torch.randn(ROWS, length, D)
    valid_BT = torch.arange(length) < torch.tensor([[length - 1], [2], [0]])
    weights = Weights(encoder)
    seen = valid_BT.numpy().copy()
    seen[:, 0] = True
    x = x_BTD.double().numpy() + weights.of["position"][:length]
    for layer in range(2):
        x = weights.encoder(f"layers.{layer}", x, seen, 2)
    x = weights.norm("norm", x)
    rows = []
    for row, valid in zip(x, seen, strict=True):
        newest = np.zeros((3, D))
        newest[: len(row)] = np.where(valid[:3, None], row[:3], 0)
        summary = weights.linear("summary", row[valid].max(axis=0))
        rows.append(np.concatenate([summary, newest.ravel()]))
    padding = Padding.of(valid_BT, strip=strip)
    found = encoder(padding.strip(x_BTD), padding).detach()
    np.testing.assert_allclose(found, rows, atol=TOLERANCE)


def test_classes_of_lengths_change_nothing_and_leave_most_padding_out():
    """Sequences of every length, some with holes: attention by class is attention."""
    random = torch.Generator().manual_seed(3)
    length_B = torch.arange(40) % 17
    valid_BT = (torch.arange(20) < length_B[:, None]) & (torch.rand(40, 20, generator=random) > 0.1)
    encoder = perturbed(SequenceEncoder(D, 20, num_layers=2, num_heads=2, latest=3))
    x_BTD = torch.randn(40, 20, D, generator=random)
    found = []
    for strip in (True, False):
        encoder.zero_grad()
        padding = Padding.of(valid_BT, strip=strip)
        out_BO = encoder(padding.strip(x_BTD), padding)
        out_BO.square().sum().backward()
        found.append((out_BO.detach(), {n: p.grad.clone() for n, p in encoder.named_parameters()}))
        if strip:
            positions = sum(at_uT.numel() for at_uT, _ in padding.classes)
            assert len(padding.classes) > 3
            assert padding.valid_BT.sum() < positions < 0.7 * padding.valid_BT.numel()
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    alike = Padding.of(torch.arange(20) < torch.tensor([[20], [15]]), strip=True)
    assert alike.classes == ()


def test_padding_that_is_left_out_changes_no_gradient():
    found = []
    for strip in (True, False):
        torch.manual_seed(1)
        encoder = perturbed(SequenceEncoder(D, 6, num_layers=2, num_heads=2, latest=3))
        x_BTD = torch.randn(ROWS, 6, D).requires_grad_()
        padding = Padding.of(torch.arange(6) < torch.tensor([[4], [2], [0]]), strip=strip)
        encoder(padding.strip(x_BTD), padding).square().sum().backward()
        gradients = {n: p.grad for n, p in encoder.named_parameters()}
        positions = gradients.pop("position")
        assert not positions[4:].any()
        assert not x_BTD.grad[:, 4:].any()
        found.append((gradients, positions, x_BTD.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
