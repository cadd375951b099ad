"""Tables beside dense layers: row-wise Adagrad, saved with AdamW; tasks that are numbers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.steps.training_guard import scored
from models.protocol import Objective, RowWise
from models.training.checkpoint import read_tensors, write_tensors
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from models.training.regression import RegressionMetrics
from models.training.row_wise import RowWiseAdagrad
from models.training.scored_rows import ScoredRows
from tests.model_fixtures.tables import HOW, TableObjective, batches, trainer


def test_a_step_is_that_of_the_formula_and_moves_touched_rows_only():
    module, before = nn.Embedding(5, 3), None
    optimizer = RowWiseAdagrad(module, {"weight": HOW})
    before, total = module.weight.detach().clone(), torch.zeros(5)
    for rows in ([1, 3, 3], [3, 0]):
        optimizer.zero_grad()
        index = torch.tensor(rows)
        module(index).square().sum().backward()
        grad = torch.zeros(5, 3)
        for row in rows:
            grad[row] += 2 * before[row]
        total += grad.square().mean(dim=1)
        expected = before - HOW.learning_rate * grad / (total.sqrt() + HOW.epsilon)[:, None]
        optimizer.step()
        torch.testing.assert_close(module.weight.detach()[total > 0], expected[total > 0])
        assert torch.equal(module.weight.detach()[total == 0], before[total == 0])
        before = module.weight.detach().clone()
    assert (total == 0).sum() == 2


def test_a_sparse_gradient_gives_the_steps_of_a_dense_one():
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        found.append(trainer(TableObjective(sparse=sparse)))
        found[-1].train(batches(5), seed=(1,))
    dense, sparse = (t.objective.state_dict() for t in found)
    for name, tensor in dense.items():
        torch.testing.assert_close(sparse[name], tensor)
    kinds = {name.partition("/")[0] for name in found[1].optimizer.tensors()}
    assert kinds == {"step", "exp_avg", "exp_avg_sq", "row_sum"}
    assert "exp_avg/table.weight" not in found[1].optimizer.tensors()


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole = trainer()
    whole.train(batches(6), seed=(1,))
    first = trainer()
    state = first.train(batches(3), seed=(1,))
    write_tensors(tmp_path / "optimizer", first.optimizer.tensors())
    again = trainer()
    again.objective.load_state_dict(first.objective.state_dict())
    again.optimizer.load(read_tensors(tmp_path / "optimizer")[0])
    again.train(batches(6), seed=(1,), state=state)
    for name, tensor in whole.objective.state_dict().items():
        assert torch.equal(again.objective.state_dict()[name], tensor), name
    lost = trainer()
    lost.objective.load_state_dict(first.objective.state_dict())
    lost.train(batches(6)[3:], seed=(1,))
    weights = lost.objective.state_dict()["table.weight"]
    assert not torch.equal(weights, whole.objective.state_dict()["table.weight"])


def test_it_learns_and_a_number_is_scored_as_one():
    found = trainer()
    before = found.score(batches(4))["rating"]
    found.train(batches(40), seed=(1,))
    after = found.score(batches(4))["rating"]
    assert after["rmse"] < 0.8 * before["rmse"]
    rows = ScoredRows()
    assert found.score(batches(4), {"rating": rows})["rating"] == {"rows": after["rows"]}
    columns = rows.columns()
    error = columns["predicted"] - columns["target"]
    assert after["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert after["mae"] == pytest.approx(np.abs(error).mean())
    assert after["r2"] == pytest.approx(1 - (error**2).mean() / columns["target"].var())
    users = np.concatenate([b["key:user"] for b in batches(4)])
    kept = np.concatenate([~np.isnan(b["rating"]) & ~b["late"] for b in batches(4)])
    assert (columns["user"] == users[kept]).all()


def test_nothing_scored_is_not_a_number():
    assert RegressionMetrics().result()["rmse"] is None
    assert ScoredRows().result() == {"rows": 0.0}


def test_a_table_that_is_none_is_named():
    class Wrong(TableObjective):
        def tables(self):
            return {"scale.bias": RowWise()}

    with pytest.raises(ValueError, match=r"expected some of .*table.weight.* found .*scale.bias"):
        trainer(Wrong())


def test_an_objective_without_tasks_is_trained_and_notscored():
    class Silent(Objective):
        tasks, losses, every_parameter_learns = (), ("total",), True

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, batch):
            return {"total": functional.mse_loss(self.layer(batch["x"]), batch["x"])}

    config = TrainingConfig(prefetch_batches=0)
    found = Trainer(Silent(), config, torch.device("cpu"), learning_rate=0.1, empty={})
    rows = [{"x": np.ones((2, 1), np.float32), "key:user": np.arange(2)}]
    assert found.train(rows, seed=(1,)).steps == 1
    assert found.score(rows) == {}


def test_a_days_metrics_are_those_of_whatever_the_tasks_are():
    binary = {"rows": 9.0, "auc": 0.7, "logloss": 0.1}
    number = {"rows": 9.0, "rmse": 0.5}
    assert scored({}, ()) == {}
    assert scored({"click": binary, "save": binary}, ("click", "save")) == {
        "auc": 0.7,
        "logloss": 0.1,
        "scored_rows": 9.0,
        "auc_save": 0.7,
    }
    assert scored({"rating": number, "click": number}, ("rating", "click")) == {
        "rmse": 0.5,
        "scored_rows": 9.0,
        "rows_click": 9.0,
        "rmse_click": 0.5,
    }
