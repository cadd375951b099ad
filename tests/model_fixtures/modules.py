"""Every module with its inputs: what the conformance suite runs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
from models.nn.experts import (
    CrossExperts,
    ExpertMixture,
    Experts,
    Gates,
    ParallelLinear,
    ParallelMLP,
)
from models.nn.masknet import MaskBlock, ParallelMaskNet
from models.nn.mlp import MLP
from models.nn.packed import Packed
from models.nn.scopes import ContextTokens, ScopeTokens
from models.nn.time_encoding import TimeEncoding
from models.nn.tokens import (
    BagToken,
    CategoricalToken,
    DenseToken,
    NumericToken,
    ScalarToken,
    SequenceToken,
    TimeToken,
    Token,
)
from models.nn.transformer import CausalEncoder, EncoderLayer, Padding, SequenceEncoder
from models.rankers.parts.blocks import ScopeBlock, SharedTable
from models.rankers.parts.ids import IdBlock, IdTokens
from models.rankers.parts.vectors import PoolVector, VectorBlock, VectorTokens
from models.rankers.unified.candidates import CandidateAttention, Grid
from models.rankers.unified.history import History, Projection
from models.rankers.unified.tree import SurfaceTree
from models.rankers.unified.trunk import Trunk
from tests.model_fixtures import rankers, unified
from tests.model_fixtures.batches import SMALL, batch, inputs, model

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


class OfCandidates(nn.Module):
    """Candidates of as many users, who remember four elements each."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = CandidateAttention(5, D, 2)

    def forward(self, x_BD: Tensor, x_BTH: Tensor) -> Tensor:
        valid_BT = torch.ones(x_BTH.shape[:2], dtype=torch.bool)
        grid = Grid.even(len(x_BD), 1)
        return self.attention(x_BD, self.attention.remember(x_BTH), valid_BT, grid)


class OfHistories(nn.Module):
    """Histories of the users of rows, and what candidates find there."""

    def __init__(self) -> None:
        super().__init__()
        sequences = tuple(f for f in unified.inputs().user if f.kind == "sequence")
        self.history = History(sequences, 3, 5, unified.HISTORY)

    def forward(self, rows: dict, x_BD: Tensor) -> Tensor:
        kept = self.history.encode(rows)
        return self.history(rows, x_BD, Grid.even(len(x_BD), 1), kept)


class OfWholeTrunk(nn.Module):
    """A trunk whose rows have users of their own, and its experts."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(unified.inputs(), 2, unified.SMALL)

    def forward(self, rows: dict) -> Tensor:
        own_B2 = torch.ones(len(rows["ts"]), 2)
        grid = Grid.even(len(own_B2), 1)
        x_BX = self.trunk(rows, self.trunk.encode(rows), own_B2, grid)
        return self.trunk.experts(x_BX).transpose(0, 1)


def tree(rows: int) -> tuple:
    return (torch.randn(rows, 7), torch.randn(rows, 3, 4), torch.randn(rows, 2))


class OfExpertsFirst(nn.Module):
    """A tree whose experts come rows first."""

    def __init__(self) -> None:
        super().__init__()
        config = unified.SMALL
        self.tree = SurfaceTree((7, 4, 2), 2, config.experts, config.tree)

    def forward(self, x_BX: Tensor, expert_BKO: Tensor, own_BV: Tensor) -> Tensor:
        return self.tree(x_BX, expert_BKO.transpose(0, 1), own_BV)


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
    "Experts": Case(lambda: of_rows_first(Experts(5, MIXTURE)), floats(5), (3, 4)),
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
    "CandidateAttention": Case(
        OfCandidates, lambda b: (torch.randn(b, 5), torch.randn(b, 4, D)), (D,)
    ),
    "History": Case(OfHistories, lambda b: (rankers.batch(b), torch.randn(b, 5)), (3 + 4,)),
    "Projection": Case(lambda: Projection(5, unified.HISTORY), floats(5), (3,)),
    "SurfaceTree": Case(OfExpertsFirst, tree, (2,)),
    "Trunk": Case(OfWholeTrunk, lambda b: (unified.batch(b),), (3, 4)),
    "CvrRanker": Case(lambda: rankers.ranker(rankers.CVR), ranked, (2,)),
}
