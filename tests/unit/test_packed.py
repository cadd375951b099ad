"""Packed sequences: equal to padded ones, blind to what is newer, dropout that keeps the mean."""

import pytest
import torch

from models.nn.dropout import dropout
from models.nn.packed import Packed
from models.nn.transformer import CausalEncoder, EncoderLayer

LENGTHS = torch.tensor([3, 0, 9, 1, 5, 7])
D = 8


def encoder(layers: int = 2) -> CausalEncoder:
    torch.manual_seed(0)
    made = CausalEncoder(D, 9, num_layers=layers, num_heads=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def elements() -> torch.Tensor:
    return torch.randn(
        int(LENGTHS.sum()), D, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()


def test_packed_equals_padded_forward_and_in_every_gradient():
    made, x_RD, packed = encoder(), elements(), Packed.of(LENGTHS)
    found = []
    for padded in (False, True):
        out_RD = made(x_RD, packed, padded=padded)
        gradients = torch.autograd.grad(out_RD.square().sum(), [x_RD, *made.parameters()])
        found.append((out_RD, gradients))
    (ours, own), (oracle, theirs) = found
    torch.testing.assert_close(ours, oracle, atol=1e-5, rtol=1e-5)
    for mine, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_an_element_is_encoded_as_the_newest_of_its_prefix():
    """A layer without a mask, over the prefix alone, is the oracle."""
    made, x_RD, packed = encoder(layers=1), elements(), Packed.of(LENGTHS)
    out_RD = made(x_RD, packed)
    layer, places = made.layers[0], made.position[packed.ages()]
    assert isinstance(layer, EncoderLayer)
    starts = LENGTHS.cumsum(0) - LENGTHS
    for start, length in zip(starts.tolist(), LENGTHS.tolist(), strict=True):
        for last in range(start, start + length):
            prefix = slice(start, last + 1)
            alone = layer((x_RD + places)[None, prefix])[0, -1]
            torch.testing.assert_close(out_RD[last], alone, atol=1e-5, rtol=1e-5)


def test_newer_elements_and_other_sequences_change_nothing():
    made, packed = encoder(), Packed.of(LENGTHS)
    x_RD = elements().detach()
    before = made(x_RD, packed)
    start = int(LENGTHS[:2].sum())
    changed = x_RD.clone()
    changed[start + 4 : start + 9] += 1
    after = made(changed, packed)
    same = torch.ones(len(x_RD), dtype=torch.bool)
    same[start + 4 : start + 9] = False
    torch.testing.assert_close(after[same], before[same], atol=1e-6, rtol=0)
    assert (after[~same] != before[~same]).any(dim=1).all()


def test_where_elements_lie():
    packed = Packed.of(torch.tensor([2, 0, 3]))
    assert packed.ages().tolist() == [1, 0, 2, 1, 0]
    assert packed.sequence_of().tolist() == [0, 0, 2, 2, 2]
    assert Packed.of(torch.tensor([2, 3])).newest().tolist() == [1, 4]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nobody(lengths):
    packed = Packed.of(torch.tensor(lengths, dtype=torch.int64))
    assert encoder()(torch.zeros(0, D), packed).shape == (0, D)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(3)
    x = torch.ones(1000, 33)
    dropped = dropout(x, 0.2, True)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert dropout(x, 0.2, False) is x
    assert dropout(x, 1.0, True).abs().sum() == 0
    torch.manual_seed(3)
    assert torch.equal(dropped, dropout(x, 0.2, True))
