"""Two processes train a table as one does, though none of them sees every row."""

import pytest
import torch

from models.training.checkpoint import module_tensors
from tests.model_fixtures.tables import ROWS, batches, train_on_ranks, trainer


def test_tables_are_equal_on_every_rank_and_those_of_one_process(tmp_path):
    whole = batches(4)
    one = trainer()
    one.train(whole, seed=(1,))
    parts = (slice(0, 5), slice(5, ROWS))
    split = [[{k: v[part] for k, v in b.items()} for b in whole] for part in parts]
    # The second one runs out of rows first: it has no gradient, and takes part all the same.
    two = train_on_ranks(tmp_path, [split[0], split[1][:3]])
    for name, tensor in two[0]["tensors"].items():
        assert torch.equal(two[1]["tensors"][name], tensor), name
    assert two[0]["scores"] == two[1]["scores"]
    (tmp_path / "again").mkdir()
    two = train_on_ranks(tmp_path / "again", split)
    expected = module_tensors(one.objective) | one.optimizer.tensors()
    for name, tensor in expected.items():
        torch.testing.assert_close(two[0]["tensors"][name], tensor, atol=1e-4, rtol=1e-3)
    scores = one.score(whole)["rating"]
    assert two[0]["scores"]["rating"] == pytest.approx(scores, rel=1e-3)
