"""Labels that arrive late: each correction finds the truth that plain training misses."""

import dataclasses
import math

import pytest
import torch

from models.training.delayed import DelayedLabels
from tests.model_fixtures.batches import SMALL, batch, objective

CORRECTIONS = ("weighted", "calibrated", "taken_back")
TRUTH = 0.2
# Ten impressions: one positive at once, one late, eight never; and the row of the late one.
TARGET = torch.tensor([[1.0]] + [[0.0]] * 9 + [[1.0]])
LATE = torch.tensor([False] * 10 + [True])


def logit(chance):
    return math.log(chance / (1 - chance))


def corrected(correction):
    delayed = DelayedLabels(1, correction)
    delayed.count(TARGET, LATE)
    return delayed


def slope(delayed, start):
    """Of the summed loss of all rows, that share one logit."""
    z = torch.tensor(start, requires_grad=True)
    delayed(z.expand(11, 1), TARGET, LATE).sum().backward()
    return z.grad.item()


@pytest.mark.parametrize("correction", ["weighted", "taken_back"])
def test_the_truth_is_where_a_corrected_loss_is_level(correction):
    delayed = corrected(correction)
    assert slope(delayed, logit(TRUTH)) == pytest.approx(0, abs=1e-6)
    assert slope(delayed, logit(TRUTH) - 0.3) < -0.1
    assert slope(delayed, logit(TRUTH) + 0.3) > 0.1


@pytest.mark.parametrize("correction", ["none", "calibrated"])
def test_uncorrected_rows_are_level_too_low(correction):
    too_low = TRUTH / (1 + 0.5 * TRUTH)
    assert slope(corrected(correction), logit(too_low)) == pytest.approx(0, abs=1e-6)


def test_calibration_turns_what_was_learned_into_the_truth():
    learned = torch.tensor([[logit(TRUTH / (1 + 0.5 * TRUTH))]])
    found = corrected("calibrated").chances(learned)
    assert torch.sigmoid(found).item() == pytest.approx(TRUTH, abs=1e-6)
    for correction in ("none", "weighted", "taken_back"):
        assert torch.equal(corrected(correction).chances(learned), learned)


def test_with_every_label_late_it_is_the_published_scheme():
    """Ktena et al.: 1 + f for positives, (1 - f)(1 + f) for negatives; p = b / (1 - b)."""
    weighted, calibrated = DelayedLabels(1, "weighted"), DelayedLabels(1, "calibrated")
    everything_late = torch.tensor([[1.0], [0.0]]), torch.tensor([True, False])
    z = torch.tensor([[logit(0.3)], [logit(0.3)]])
    for delayed in (weighted, calibrated):
        delayed.count(*everything_late)
    found = weighted(z, *everything_late)
    expected = [[-1.3 * math.log(0.3)], [-0.7 * 1.3 * math.log(0.7)]]
    torch.testing.assert_close(found, torch.tensor(expected))
    chance = torch.sigmoid(calibrated.chances(z[:1])).item()
    assert chance == pytest.approx(0.3 / 0.7, rel=1e-5)


@pytest.mark.parametrize("correction", ["none", *CORRECTIONS])
def test_without_delay_all_are_the_plain_loss(correction):
    z, target = torch.randn(6, 2), torch.randint(0, 2, (6, 2)).float()
    nothing_late = torch.zeros(6, dtype=torch.bool)
    delayed, plain = DelayedLabels(2, correction), DelayedLabels(2, "none")
    delayed.count(target, nothing_late)
    found, expected = delayed(z, target, nothing_late), plain(z, target, nothing_late)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(delayed.chances(z), z)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_losses_and_turned_logits_are_finite_at_extremes(correction):
    delayed = corrected(correction)
    for size in (1e4, -1e4):
        z = torch.full((11, 1), size, requires_grad=True)
        delayed(z, TARGET, LATE).sum().backward()
        assert torch.isfinite(z.grad).all()
        assert torch.isfinite(delayed.chances(z)).all()


def test_the_share_of_late_labels_follows_the_days():
    delayed = DelayedLabels(1, "weighted")
    ones, late = torch.ones(8, 1), torch.ones(8, dtype=torch.bool)
    delayed.count(ones, ~late)
    assert delayed.late_share().item() == 0
    for _ in range(20):
        delayed.fade()
        delayed.count(ones, late)
    assert delayed.late_share().item() > 0.95


def test_the_objective_counts_while_training_and_predicts_with_what_it_counted():
    loss = dataclasses.replace(SMALL.loss, delayed="calibrated")
    trained = objective(dataclasses.replace(SMALL, loss=loss), upstream="cvr")
    rows = batch(8, upstream="cvr")
    rows["late"][:4] = True
    plain = trained.eval().predict(rows)
    torch.testing.assert_close(plain, trained.model(rows)["logits"])
    trained.train()(rows)
    assert (trained.eval().predict(rows) > plain).any()
