"""Tables of ids in rankers: loaded, frozen, fine-tuned, faster where they are read often."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.nn.config import IdFacetsConfig
from models.nn.id_table import DEFAULT_ROW
from models.protocol import RowWise
from models.rankers.config import CtrConfig
from models.rankers.objective import RankingObjective
from models.rankers.parts.ids import IdFacets
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from models.training.row_wise import RowWiseAdagrad, by_frequency
from tests.model_fixtures import rankers

IDS = IdFacetsConfig(facets="pairs, graph", user_rows=53, pin_rows=53, dim=4, min_count=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps are so small that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(rows: int = 12) -> dict:
    torch.manual_seed(7)
    found = rankers.batch(rows)
    return found | {f"key:{e}": torch.randint(1, 9, (rows,)) for e in ("user", "pin")}


def made(config, **ids) -> RankingObjective:
    torch.manual_seed(0)
    return rankers.objective(dataclasses.replace(config, ids=dataclasses.replace(IDS, **ids)))


@pytest.mark.parametrize("config", [rankers.CTR, rankers.CVR], ids=["ctr", "cvr"])
@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_tables_reach_the_logits_and_learn(config, combine: str) -> None:
    objective, rows = made(config, combine=combine), batch()
    with_ids = objective(rows)["total"]
    with_ids.backward()
    tables = objective.tables()
    named = dict(objective.named_parameters())
    assert len(tables) == 4
    assert all(named[name].grad.coalesce().values().any() for name in tables)
    objective.eval()
    before = objective.predict(rows)
    objective.model.ids.facets.table["pin_graph"].weight.data += torch.randn(53, 4)
    assert not torch.equal(objective.predict(rows), before)


def test_without_facets_there_is_nothing_of_them() -> None:
    torch.manual_seed(0)
    plain = rankers.objective(CtrConfig())
    assert plain.tables() == {}
    assert not any(".ids." in name for name in plain.state_dict())


def test_a_loaded_table_is_read_and_who_has_no_row_begins_as_the_default() -> None:
    facets = IdFacets(IDS).eval()
    weight, count = torch.randn(53, 4), torch.zeros(53, dtype=torch.int32)
    key = torch.tensor([5])
    row = facets.table["user_pairs"].rows_of(key)[0, 0]
    count[row] = 3
    facets.load("pairs", "user", weight, count)
    assert torch.equal(facets.table["user_pairs"](key)[0], weight[row])
    others = torch.arange(53) != row
    assert (facets.table["user_pairs"].weight[others] == weight[DEFAULT_ROW]).all()
    with pytest.raises(ValueError, match="facet"):
        facets.load("nothing", "user", weight, count)
    with pytest.raises(ValueError, match="expected a table"):
        facets.load("graph", "user", weight[:-1], count)


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_frozen_tables_stay_and_others_move(rate: float) -> None:
    objective, rows = made(rankers.CTR, learning_rate=rate), batch()
    for table in objective.model.ids.facets.table.values():
        table.count_R.fill_(1)
    before = {n: x.clone() for n, x in objective.state_dict().items() if ".ids." in n}
    assert any(name.endswith("sum_R") for name in before) == (rate > 0)
    arrays = {name: x.numpy() for name, x in rows.items()}
    trainer = Trainer(
        objective,
        TrainingConfig(prefetch_batches=0, checkpoint_steps=0),
        torch.device("cpu"),
        learning_rate=1e-3,
        empty={name: x[:0] for name, x in arrays.items()},
    )
    trainer.train([arrays], seed=(1,))
    after = objective.state_dict()
    moved = {name for name, x in before.items() if not torch.equal(after[name], x)}
    expected = {name for name in before if rate > 0}
    assert moved == expected


def test_the_published_rates_by_frequency() -> None:
    """FAL (arXiv 2505.05605): F = 0, 1, 9, 99, 999."""
    read = torch.tensor([0, 1, 9, 99, 999])
    want = torch.tensor([0.0, 0.100343, 1 / 3, 2 / 3, 1.0])
    torch.testing.assert_close(by_frequency(read, read.max()), want, atol=1e-6, rtol=0)


def test_a_row_that_is_read_often_learns_faster() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    start = table.weight.detach().clone()
    how = RowWise(learning_rate=0.1, by_frequency=True)
    optimizer = RowWiseAdagrad(table, {"weight": how})
    # Row 1 is read nine times, row 2 once, with the same summed gradient.
    found = table(torch.tensor([1] * 9 + [2]))
    weight = torch.tensor([1 / 9] * 9 + [1.0])
    (found.sum(dim=1) * weight).sum().backward()
    optimizer.step()
    moved = (start - table.weight.detach()).norm(dim=1)
    assert moved[0] == moved[3] == 0
    assert moved[2] / moved[1] == pytest.approx(0.30103, rel=1e-4), "log 2 / log 10"
    saved = optimizer.tensors()
    assert saved["row_read/weight"].tolist() == [0, 9, 1, 0]
    again = RowWiseAdagrad(table, {"weight": how})
    again.load(saved)
    assert torch.equal(again.tensors()["row_read/weight"], saved["row_read/weight"])
