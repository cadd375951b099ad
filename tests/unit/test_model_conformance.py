"""One suite for every module: shapes, gradients, independence of rows, state, determinism."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import models.derm
import models.nn
import models.rankers
from models.derm.towers import EntityTower, OverallTower
from models.nn.config import DhenConfig, ExpertsConfig, SequenceConfig
from models.nn.cross import CrossLayer, CrossNetwork, LowRankCrossLayer
from models.nn.dhen import (
    DhenLayer,
    DhenTower,
    LinearInteraction,
    MaskInteraction,
    MlpInteraction,
    TokenMixer,
    TransformerInteraction,
)
from models.nn.experts import CrossExperts, ExpertMixture, Gates, ParallelLinear, ParallelMLP
from models.nn.masknet import MaskBlock, ParallelMaskNet
from models.nn.mlp import MLP
from models.nn.packed import Packed
from models.nn.scopes import ContextTokens, ScopeTokens
from models.nn.time_encoding import TimeEncoding
from models.nn.tokens import (
    BagToken,
    CategoricalToken,
    DenseToken,
    NumericNormalizer,
    NumericToken,
    ScalarToken,
    SequenceToken,
    TimeToken,
    Token,
)
from models.nn.transformer import CausalEncoder, EncoderLayer, Padding, SequenceEncoder
from models.rankers.blocks import ScopeBlock, SharedTable
from models.rankers.ids import IdBlock, IdTokens
from models.rankers.vectors import PoolVector, VectorBlock, VectorTokens
from tests.model_fixtures import rankers
from tests.model_fixtures.batches import SMALL, batch, inputs, model, objective

D = 8
TOWER = DhenConfig(token_dim=D, num_tokens=4)
SEQUENCE = SequenceConfig(max_len=6, latest=2)


@dataclass(frozen=True)
class Case:
    """A module, its inputs for B rows, and the shape of one output row."""

    build: Callable[[], nn.Module]
    feed: Callable[[int], tuple]
    row: tuple[int, ...]


def floats(*shape: int) -> Callable[[int], tuple]:
    return lambda rows: (torch.randn(rows, *shape),)


def ids(top: int, *shape: int) -> Callable[[int], tuple]:
    return lambda rows: (torch.randint(1, top, (rows, *shape)),)


def whole(rows: int) -> tuple:
    return (batch(rows),)


def overall(rows: int) -> tuple:
    sides = [(torch.randn(rows, 4 * D), torch.randn(rows, 4, D)) for _ in range(2)]
    return (batch(rows), *sides)


def dhen(ensemble: str, *modules: str) -> Callable[[], nn.Module]:
    config = DhenConfig(token_dim=D, num_tokens=4, ensemble=ensemble, layers=(modules,))
    return lambda: DhenLayer(config, modules, 3)


class OfPadded(nn.Module):
    """A sequence encoder over padded elements, so that its rows can be taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SequenceEncoder(D, 4, num_layers=2, num_heads=2, latest=2)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        padding = Padding.of(valid_BT, strip=True)
        return self.encoder(padding.strip(x_BTD), padding)


class OfEqualLength(nn.Module):
    """A causal encoder over sequences of four elements."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CausalEncoder(D, 4, num_layers=2, num_heads=2)

    def forward(self, x_BTD: Tensor) -> Tensor:
        packed = Packed.of(torch.full((len(x_BTD),), 4))
        return self.encoder(x_BTD.flatten(0, 1), packed).view(x_BTD.shape)


def of_rows_first(module: nn.Module) -> nn.Module:
    """A module that puts its rows second, as one that puts them first."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *arguments: Tensor) -> Tensor:
            return self.module(*arguments).transpose(0, 1)

    return Turned()


def ranked(rows: int) -> tuple:
    return (rankers.batch(rows),)


MIXTURE = ExpertsConfig(num_experts=3, cross_layers=2, hidden=(6, 4))
LOW_RANK = ExpertsConfig(num_experts=3, cross_layers=2, cross_rank=2, hidden=(6, 4))
USER, PIN = inputs().user, inputs().pin
CASES: dict[str, Case] = {
    "MLP": Case(lambda: MLP(5, (7,), 3), floats(5), (3,)),
    "MaskBlock": Case(
        lambda: MaskBlock(5, 6, 4), lambda b: (torch.randn(b, 5), torch.randn(b, 6)), (4,)
    ),
    "ParallelMaskNet": Case(lambda: ParallelMaskNet(5, 4, num_blocks=3), floats(5), (12,)),
    "CrossLayer": Case(
        lambda: CrossLayer(5), lambda b: (torch.randn(b, 5), torch.randn(b, 5)), (5,)
    ),
    "LowRankCrossLayer": Case(
        lambda: LowRankCrossLayer(5, 2, 3), lambda b: (torch.randn(b, 5), torch.randn(b, 5)), (5,)
    ),
    "CrossNetwork": Case(lambda: CrossNetwork(5, 2, rank=2), floats(5), (5,)),
    "EncoderLayer": Case(lambda: EncoderLayer(D, 2), floats(4, D), (4, D)),
    "CausalEncoder": Case(OfEqualLength, floats(4, D), (4, D)),
    "SequenceEncoder": Case(
        OfPadded,
        lambda b: (torch.randn(b, 4, D), torch.rand(b, 4) < 0.7),
        (3 * D,),
    ),
    "TimeEncoding": Case(
        lambda: TimeEncoding((900.0, 3600.0)), lambda b: (torch.rand(b).double() * 1e4,), (5,)
    ),
    "Token": Case(lambda: Token(5, D), floats(5), (D,)),
    "ScalarToken": Case(lambda: ScalarToken(D), floats(), (D,)),
    "NumericToken": Case(lambda: NumericToken(3, D), lambda b: (torch.rand(b, 3),), (D,)),
    "CategoricalToken": Case(lambda: CategoricalToken(9, 4, D), ids(9), (D,)),
    "BagToken": Case(lambda: BagToken(9, 4, D), ids(9, 3), (D,)),
    "DenseToken": Case(lambda: DenseToken(5, D), floats(5), (D,)),
    "SequenceToken": Case(
        lambda: SequenceToken((9, 5), 6, 4, D, SEQUENCE),
        lambda b: ([torch.randint(1, n, (b, 6)) for n in (9, 5)],),
        (D,),
    ),
    "TimeToken": Case(
        lambda: TimeToken(D), lambda b: (1.7e9 + torch.rand(b).double() * 1e6,), (D,)
    ),
    "TokenMixer": Case(lambda: TokenMixer(3, 2), floats(3, D), (2, D)),
    "LinearInteraction": Case(lambda: LinearInteraction(TOWER, 3, 2), floats(3, D), (2, D)),
    "MlpInteraction": Case(lambda: MlpInteraction(TOWER, 3, 2), floats(3, D), (2, D)),
    "MaskInteraction": Case(lambda: MaskInteraction(TOWER, 3, 2), floats(3, D), (2, D)),
    "TransformerInteraction": Case(
        lambda: TransformerInteraction(TOWER, 3, 2), floats(3, D), (2, D)
    ),
    "DhenLayer": Case(dhen("concat", "mask", "mlp"), floats(3, D), (4, D)),
    "DhenLayer sum": Case(dhen("sum", "transformer", "linear"), floats(3, D), (4, D)),
    "DhenLayer weighted": Case(dhen("weighted", "mlp", "linear"), floats(3, D), (4, D)),
    "DhenTower": Case(lambda: DhenTower(TOWER, 3), floats(3, D), (4, D)),
    "ScopeTokens": Case(lambda: ScopeTokens(USER, "user", SMALL.tokens), whole, (6, D)),
    "ContextTokens": Case(
        lambda: ContextTokens(inputs().context, inputs().num_surfaces, SMALL.tokens), whole, (4, D)
    ),
    "EntityTower": Case(lambda: EntityTower(PIN, "pin", SMALL), whole, (4 * D,)),
    "OverallTower": Case(lambda: OverallTower(inputs(), SMALL), overall, (2,)),
    "DermModel": Case(model, whole, (2,)),
    "ParallelLinear": Case(lambda: of_rows_first(ParallelLinear(3, 5, 4)), floats(5), (3, 4)),
    "ParallelMLP": Case(lambda: of_rows_first(ParallelMLP(3, (5, 6, 4))), floats(5), (3, 4)),
    "CrossExperts": Case(lambda: of_rows_first(CrossExperts(3, 5, 2)), floats(5), (3, 5)),
    "CrossExperts low rank": Case(
        lambda: of_rows_first(CrossExperts(3, 5, 2, rank=2)), floats(5), (3, 5)
    ),
    "Gates": Case(lambda: Gates(5, 2, 3), floats(5), (2, 3)),
    "ExpertMixture": Case(lambda: of_rows_first(ExpertMixture(5, 1, MIXTURE)), floats(5), (1, 4)),
    "ExpertMixture per task": Case(
        lambda: of_rows_first(ExpertMixture(5, 2, LOW_RANK)), floats(5), (2, 4)
    ),
    "SharedTable": Case(
        lambda: SharedTable(*rankers.looked_up(), 3),
        ranked,
        (3 * len(sum(rankers.looked_up(), ())),),
    ),
    "ScopeBlock": Case(
        lambda: ScopeBlock(USER, rankers.CTR), ranked, (ScopeBlock(USER, rankers.CTR).out_dim,)
    ),
    "PoolVector": Case(lambda: PoolVector(5), lambda b: (rankers.some_missing(b, 5),), (6,)),
    "VectorBlock": Case(
        lambda: VectorBlock(rankers.VECTORS, 0), ranked, (4 * (rankers.WIDTH + 1),)
    ),
    "VectorBlock projected": Case(lambda: VectorBlock(rankers.VECTORS, 7), ranked, (7,)),
    "VectorTokens": Case(lambda: VectorTokens(rankers.VECTORS, D), ranked, (4, D)),
    "IdBlock": Case(lambda: IdBlock(rankers.IDS), ranked, (12,)),
    "IdTokens": Case(lambda: IdTokens(rankers.IDS, D), ranked, (4, D)),
    "CtrRanker": Case(lambda: rankers.ranker(rankers.CTR), ranked, (2,)),
    "CtrRanker per task": Case(lambda: rankers.ranker(rankers.PER_TASK), ranked, (2,)),
    "CtrRanker without": Case(lambda: rankers.ranker(rankers.CTR, ()), ranked, (2,)),
    "CvrRanker": Case(lambda: rankers.ranker(rankers.CVR), ranked, (2,)),
}
# Without weights, or not a function of rows: tested where they are used.
ELSEWHERE = {
    *("CountMinSketch", "Dropout", "NumericNormalizer", "SampledSoftmax", "DermObjective"),
    *("RankingObjective", "NextAction", "IdTable", "IdFacets", "SamplingProbability"),
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


def exported() -> dict[str, type[nn.Module]]:
    found: dict[str, type[nn.Module]] = {}
    for package in (models.nn, models.derm, models.rankers):
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
