"""One suite for every module: shapes, gradients, independence of rows, state, determinism."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import Tensor, nn

import models.derm
import models.nn
import models.rankers
import models.rankers.parts
import models.rankers.unified
from models.nn.config import SequenceConfig
from models.nn.tokens import (
    BagToken,
    NumericNormalizer,
    SequenceToken,
)
from tests.model_fixtures.batches import batch, objective
from tests.model_fixtures.modules import CASES, D

# Without weights, or not a function of rows: tested where they are used.
ELSEWHERE = {
    *("CountMinSketch", "Dropout", "NumericNormalizer", "SampledSoftmax", "DermObjective"),
    *("RankingObjective", "NextAction", "SequenceElements"),
    *("IdTable", "IdRows", "IdFacets", "SamplingProbability"),
    *(
        "RelationViews",
        "UnifiedRanker",
        "OwnFeatures",
        "SurfaceBalance",
        "SurfaceProgram",
        "SurfaceCalibration",
    ),
}


def run(module: nn.Module, arguments: tuple) -> Tensor:
    out = module(*arguments)
    if isinstance(out, dict):
        return out["logits"]
    return out[0] if isinstance(out, tuple) else out


def rows_of(value, rows):
    if isinstance(value, dict):
        return {k: v[rows] for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rows_of(v, rows) for v in value)
    return value[rows]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    torch.manual_seed(1)
    return CASES[request.param]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_shape_and_finite(case, rows):
    out = run(case.build(), case.feed(rows))
    assert out.shape == (rows, *case.row)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("rows", [1, 5])
def test_every_parameter_gets_a_gradient(case, rows):
    module = case.build()
    out = run(module, case.feed(rows))
    (out * torch.randn(out.shape)).sum().backward()
    silent = [
        name
        for name, p in module.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert silent == []


def test_a_row_does_not_depend_on_the_others(case):
    module, fed = case.build().eval(), case.feed(5)
    together = run(module, fed)
    for row in range(5):
        alone = run(module, rows_of(fed, slice(row, row + 1)))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)
    turned = run(module, rows_of(fed, torch.arange(4, -1, -1)))
    torch.testing.assert_close(turned.flip(0), together, atol=1e-5, rtol=1e-5)


def test_same_seed_same_bits_and_a_copy_agrees(case):
    fed = case.feed(3)
    torch.manual_seed(5)
    first = case.build().eval()
    torch.manual_seed(5)
    second = case.build().eval()
    assert torch.equal(run(first, fed), run(second, fed))
    third = case.build().eval()
    third.load_state_dict(first.state_dict())
    assert torch.equal(run(first, fed), run(third, fed))


def test_every_parameter_of_the_objective_gets_a_gradient():
    for rows in (2, 5):
        trained = objective()
        trained(batch(rows))["total"].backward()
        silent = [n for n, p in trained.named_parameters() if not p.grad.abs().sum() > 0]
        assert silent == []


def test_longer_padding_changes_nothing():
    torch.manual_seed(0)
    token = SequenceToken((9,), 6, 4, D, SequenceConfig(max_len=6, latest=2)).eval()
    short = torch.tensor([[3, 4, 0], [5, 0, 0], [0, 0, 0]])
    padded = torch.nn.functional.pad(short, (0, 3))
    torch.testing.assert_close(token([short]), token([padded]), atol=1e-6, rtol=1e-6)


def test_an_older_element_than_the_limit_is_not_read():
    torch.manual_seed(0)
    token = SequenceToken((9,), 6, 4, D, SequenceConfig(max_len=3, latest=2)).eval()
    some, others = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 7, 7, 7]])
    assert torch.equal(token([some]), token([others]))


def test_a_padded_bag_is_the_mean_of_its_elements():
    token = BagToken(9, 4, D)
    mean = token.table.weight[[2, 5]].mean(dim=0, keepdim=True)
    found = token(torch.tensor([[2, 5, 0]]))
    torch.testing.assert_close(found, token.token(mean), atol=1e-6, rtol=1e-6)


_PACKAGES = (models.nn, models.derm, models.rankers, models.rankers.parts, models.rankers.unified)


def exported() -> dict[str, type[nn.Module]]:
    found: dict[str, type[nn.Module]] = {}
    for package in _PACKAGES:
        for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            found |= {
                name: cls
                for name, cls in inspect.getmembers(module, inspect.isclass)
                if issubclass(cls, nn.Module) and cls.__module__ == info.name
            }
    return found


def test_every_module_has_a_case_and_names_its_source():
    classes = exported()
    assert set(classes) == {name.split()[0] for name in CASES} | ELSEWHERE
    for name, cls in classes.items():
        text = inspect.getdoc(cls) or ""
        if name != "CountMinSketch":
            assert "Source:" in text, name
        assert "Deviations:" in text, name


def test_no_constructor_is_overgrown():
    for name, cls in exported().items():
        count = len(inspect.signature(cls.__init__).parameters) - 1
        assert count <= 5, f"{name} takes {count} arguments"


def test_normalizer_takes_no_gradient():
    assert list(NumericNormalizer(3).parameters()) == []
