"""What embeddings are worth, and probabilities from logits."""

import numpy as np
import pytest
import torch

from models.rankers import calibration
from models.rankers.calibration import LogitCounts
from models.training.paired_auc import PairedAuc


def _day(rows=6000, *, users=300, seed=0):
    random = np.random.default_rng(seed)
    user = random.integers(0, users, rows)
    truth = random.standard_normal(rows)
    label = (random.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return torch.from_numpy(user), torch.from_numpy(truth).float(), torch.from_numpy(label)


def test_the_interval_of_a_better_model_is_above_zero_and_that_of_the_same_is_zero():
    user, truth, label = _day()
    noisy = truth + torch.randn(len(truth), generator=torch.Generator().manual_seed(1))
    better, same = PairedAuc(200, 0), PairedAuc(200, 0)
    better.update(torch.stack([truth, noisy]), label, user)
    same.update(torch.stack([truth, truth]), label, user)
    found = better.result()
    assert 0 < found["worth_low"] < found["worth"] < found["worth_high"]
    assert same.result()["worth_low"] == same.result()["worth_high"] == 0


def test_the_interval_covers_as_often_as_it_says():
    """Two models of equal strength: 95 % of intervals contain no difference."""
    covered = []
    for seed in range(40):
        user, truth, label = _day(800, users=150, seed=seed)
        noise = torch.randn(2, len(truth), generator=torch.Generator().manual_seed(seed))
        pair = PairedAuc(200, seed)
        pair.update(truth + noise, label, user)
        found = pair.result()
        covered.append(found["worth_low"] <= 0 <= found["worth_high"])
    assert 0.85 <= np.mean(covered) <= 1.0


@pytest.mark.parametrize("label", [0.0, 1.0, float("nan")])
def test_one_class_has_no_worth(label):
    pair = PairedAuc(10, 0)
    pair.update(torch.randn(2, 20), torch.full((20,), label), torch.arange(20))
    assert set(pair.result().values()) == {None}


def _counts(logit, label, surface, late=None):
    counts = LogitCounts(1, 2)
    late = torch.zeros(len(logit), dtype=torch.bool) if late is None else late
    counts.update(logit[:, None], label[:, None], surface, late)
    return counts.counts_TS2C.numpy()


def test_each_surface_gets_its_scale_and_shift_back():
    random = torch.Generator().manual_seed(0)
    logit = torch.randn(60_000, generator=random)
    surface = torch.randint(1, 3, (60_000,), generator=random)
    scale, shift = torch.tensor([0.0, 0.5, 2.0])[surface], torch.tensor([0.0, 1.0, -1.0])[surface]
    label = (torch.rand(60_000, generator=random) < torch.sigmoid(scale * logit + shift)).float()
    counts = _counts(logit, label, surface)
    fitted = calibration.fit(counts, calibration.untouched(1, 2), 10)
    np.testing.assert_allclose(fitted[0, 1], [0.5, 1.0], atol=0.06)
    np.testing.assert_allclose(fitted[0, 2], [2.0, -1.0], atol=0.06)
    by_surface = calibration.ratio(counts[0], fitted[0])
    assert by_surface == pytest.approx(1, abs=1e-3)
    probability = calibration.apply(torch.from_numpy(fitted).float(), logit[:, None], surface)
    assert probability.mean().item() == pytest.approx(label.mean().item(), abs=1e-3)


def test_a_surface_that_was_never_seen_reads_all_of_them_together():
    _, truth, label = _day()
    counts = _counts(truth - 1, label, torch.ones(len(truth), dtype=torch.long))
    fitted = calibration.fit(counts, calibration.untouched(1, 2), 10)
    np.testing.assert_allclose(fitted[0, 0], fitted[0, 1])
    assert fitted[0, 2].tolist() == [1, 0], "a surface without rows keeps what it had"


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_labels_of_one_class_stay_near_yesterday(value):
    logit = torch.randn(500, generator=torch.Generator().manual_seed(2))
    counts = _counts(logit, torch.full((500,), value), torch.ones(500, dtype=torch.long))
    before = np.broadcast_to([1.2, -0.3], (1, 3, 2)).copy()
    fitted = calibration.fit(counts, before, 1000)
    assert np.isfinite(fitted).all()
    few = _counts(logit[:3], torch.full((3,), value), torch.ones(3, dtype=torch.long))
    np.testing.assert_allclose(calibration.fit(few, before, 100_000), before, atol=0.02)


def test_a_late_positive_takes_its_negative_back():
    logit = torch.zeros(4)
    late = torch.tensor([False, False, False, True])
    label = torch.tensor([0.0, 0.0, 1.0, 1.0])
    counts = _counts(logit, label, torch.ones(4, dtype=torch.long), late)
    assert counts[0, 1].sum(axis=1).tolist() == [1, 2]


def test_a_temperature_leaves_the_shift_alone():
    random = torch.Generator().manual_seed(3)
    logit = torch.randn(40_000, generator=random)
    surface = torch.ones(40_000, dtype=torch.long)
    label = (torch.rand(40_000, generator=random) < torch.sigmoid(0.5 * logit)).float()
    before = calibration.untouched(1, 2)
    fitted = calibration.fit(_counts(logit, label, surface), before, 10, "temperature")
    assert fitted[0, 1, 0] == pytest.approx(0.5, abs=0.05)
    assert fitted[0, 1, 1] == 0


def test_ratios_are_those_of_each_surface():
    logit = torch.zeros(60)
    surface = torch.tensor([1] * 40 + [2] * 20)
    label = torch.tensor([1.0] * 10 + [0.0] * 50)
    counts = _counts(logit, label, surface)
    found = calibration.ratios(counts[0], calibration.untouched(1, 2)[0])
    assert found[0] == (None, 0)
    assert found[1] == (pytest.approx(2.0, abs=0.02), 10)
    assert found[2] == (None, 0)
