"""Two processes over gloo train as one process does on the concatenated batch."""

import dataclasses

import pytest
import torch

from tests.model_fixtures.batches import SMALL
from tests.model_fixtures.ranks import ROWS, train, train_on_ranks, whole_batches

STEPS = 3


def halves(batches, split):
    parts = (slice(0, split), slice(split, ROWS))
    return [[{k: v[part] for k, v in b.items()} for b in batches] for part in parts]


@pytest.mark.parametrize(
    ("split", "pool"),
    [
        (ROWS // 2, {}),
        (7, {"max_negatives": 9}),
        (7, {"max_negatives": 9, "random_negatives": 5, "q_estimator": "exact"}),
    ],
)
def test_same_loss_gradients_and_weights(tmp_path, split, pool):
    model = dataclasses.replace(SMALL, loss=dataclasses.replace(SMALL.loss, **pool))
    batches = whole_batches(STEPS)
    one = train(batches, model)
    two = train_on_ranks(tmp_path, halves(batches, split), model)
    for rank in two:
        assert rank["rows"] == one["rows"] == STEPS * ROWS
        assert rank["losses"] == pytest.approx(one["losses"], rel=1e-5)
        for name, gradient in one["gradients"].items():
            torch.testing.assert_close(rank["gradients"][name], gradient, atol=1e-5, rtol=1e-4)
        # Adam's first steps amplify rounding of gradients near zero.
        for name, weight in one["weights"].items():
            torch.testing.assert_close(rank["weights"][name], weight, atol=2e-4, rtol=1e-3)
        assert rank["scores"]["click"]["auc"] == pytest.approx(
            one["scores"]["click"]["auc"], abs=5e-3
        )
    assert torch.equal(two[0]["weights"]["sketch.counts_RW"], one["weights"]["sketch.counts_RW"])


def test_a_rank_that_runs_out_of_rows_waits_for_the_other(tmp_path):
    first, second = halves(whole_batches(STEPS), ROWS // 2)
    two = train_on_ranks(tmp_path, [first, second[:1]])
    assert [rank["steps"] for rank in two] == [STEPS, STEPS]
    for name, weight in two[0]["weights"].items():
        assert torch.equal(two[1]["weights"][name], weight)
