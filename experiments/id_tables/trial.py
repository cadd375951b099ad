"""One ranker with tables of ids: trained on a window of days, asked about the days that follow."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from experiments.harness.design import Variant
from experiments.id_tables.facets import (
    GRAPH,
    PAIRS,
    Facet,
    FacetOptions,
    one_for_all,
    pretrained,
    shuffled,
    tables_world,
)
from experiments.id_tables.worlds import MarketOptions
from experiments.truth import expected_auc
from feature_store.tables.rowwise import RowFormat
from models.nn.config import IdFacetsConfig
from models.nn.id_table import IdTable
from models.rankers.config import CtrConfig
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.training.config import TrainingConfig
from models.training.determinism import make_deterministic, seed_torch
from models.training.loop import Trainer
from models.training.metrics import normalized_entropy

SCRATCH = "scratch"
_SMALLEST = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesVariant(Variant):
    """What tables a ranker has, and what becomes of them.

    Attributes:
        facets: names, separated by commas; none where empty.
        rate: of the tables, in multiples of the rate from scratch; 0 freezes them.
        by_frequency: rows learn the faster the oftener they were read.
        combine: of facets.
        stale: days between the pretraining and the ranker's window.
        bits: of a number of the tables when the ranker is asked; 32 leaves them.
        rows: as they were pretrained, dealt out anew, or the same for everybody.
    """

    facets: str = ""
    rate: float = 0.1
    by_frequency: bool = False
    combine: Literal["concat", "sum"] = "concat"
    stale: int = 0
    bits: Literal[4, 8, 32] = 32
    rows: Literal["own", "shuffled", "one"] = "own"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialOptions:
    """What decides a cell beside its variant.

    Attributes:
        trainings: of the ranker, each from other weights; what they measure is averaged, for a
            small world tells two trainings of the same thing apart.
    """

    world: MarketOptions
    facets: FacetOptions
    trainings: int = 3


def measured(variant: TablesVariant, seed: int, options: TrialOptions) -> dict[str, float]:
    """Train the ranker of a variant, and ask it about the days after its window."""
    found = [_once(variant, seed, number, options) for number in range(options.trainings)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _once(
    variant: TablesVariant, seed: int, number: int, options: TrialOptions
) -> dict[str, float]:
    """What one training measures."""
    of_any_bits = dataclasses.replace(variant, name="", placebo=False, bits=32)
    trainer = _trained(of_any_bits, seed, number, options)
    tables = _tables(trainer)
    kept = [table.weight.detach().clone() for table in tables]
    if variant.bits != 32:
        _quantise(tables, variant.bits)
    tested = tables_world(options.world, seed).tested
    logit_N = np.concatenate([trainer.predict(b)[:, 0].numpy() for b in tested.batches])
    with torch.no_grad():
        for table, weight_RD in zip(tables, kept, strict=True):
            table.weight.copy_(weight_RD)
    chance_N = 1 / (1 + np.exp(-logit_N.astype(np.float64)))
    rate, told_N = tested.click_N.mean(), np.clip(chance_N, _SMALLEST, 1 - _SMALLEST)
    loss = -(tested.click_N * np.log(told_N) + (1 - tested.click_N) * np.log1p(-told_N)).mean()
    return {
        "auc_true": expected_auc(chance_N, tested.chance_N),
        "auc": expected_auc(chance_N, tested.click_N),
        "ne": normalized_entropy(float(loss), float(rate)),
    }


@lru_cache(maxsize=8)
def _trained(variant: TablesVariant, seed: int, number: int, options: TrialOptions) -> Trainer:
    """A ranker of a variant; the last ones are kept, for the same at other bits."""
    make_deterministic(threads=1)
    world, how = tables_world(options.world, seed), options.facets
    ids = IdFacetsConfig(
        facets=variant.facets,
        combine=variant.combine,
        user_rows=how.rows,
        pin_rows=how.rows,
        dim=how.width,
        min_count=how.min_count,
        learning_rate=variant.rate * how.rate,
        by_frequency=variant.by_frequency,
    )
    seed_torch(seed, "ranker", number)
    inputs = RankingInputs.of(world.spec, "ctr", ())
    objective = RankingObjective(inputs, CtrConfig(ids=ids))
    objective.fit(world.window)
    if objective.ids is not None:
        for name in ids.names:
            for entity, rows in _facet(variant, name, seed, options).items():
                objective.ids.load(name, entity, rows.weight_RD, rows.count_R)
    trainer = Trainer(
        objective,
        TrainingConfig(prefetch_batches=0, checkpoint_steps=0),
        torch.device("cpu"),
        learning_rate=1e-3,
        empty=world.empty(),
    )
    trainer.train(world.learned, seed=(seed, "ranker", number))
    return trainer


def _facet(variant: TablesVariant, name: str, seed: int, options: TrialOptions) -> Facet:
    """A facet as the variant has it; nothing of one that begins from scratch."""
    if name == SCRATCH:
        return {}
    facet = pretrained(options.world, options.facets, seed, variant.stale)[name]
    if variant.rows == "shuffled":
        return shuffled(facet, seed)
    return one_for_all(facet) if variant.rows == "one" else facet


def _tables(trainer: Trainer) -> list[IdTable]:
    return [m for m in trainer.objective.modules() if isinstance(m, IdTable)]


@torch.no_grad()
def _quantise(tables: list[IdTable], bits: Literal[4, 8]) -> None:
    """Tables as whoever reads them from rows of so few bits sees them."""
    for table in tables:
        form = RowFormat(bits=bits, dim=table.config.dim)
        rows = form.decode(form.encode(table.weight.detach().numpy()))
        table.weight.copy_(torch.from_numpy(rows))


BOTH = f"{PAIRS}, {GRAPH}"
