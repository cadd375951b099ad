"""Streaming metrics against scikit-learn, and the known answers."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from models.training.metrics import BinaryMetrics, effective_rank, normalized_entropy


def test_normalized_entropy_known_answer():
    labels, scores = np.array([1, 0, 0, 1, 0]), np.array([0.6, 0.2, 0.3, 0.5, 0.1])
    loss = log_loss(labels, scores)
    assert normalized_entropy(loss, 0.4) == pytest.approx(0.561402, abs=1e-6)
    metrics = BinaryMetrics()
    logits = np.log(scores / (1 - scores))
    metrics.update(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32))
    assert metrics.result()["ne"] == pytest.approx(0.561402, abs=1e-6)


def test_metrics_equal_scikit_learn():
    random = np.random.default_rng(0)
    logits = random.normal(-2, 1.5, 20_000)
    scores = 1 / (1 + np.exp(-logits))
    labels = (random.random(20_000) < scores).astype(np.float32)
    metrics = BinaryMetrics()
    for part in np.array_split(np.arange(20_000), 7):
        metrics.update(torch.tensor(logits[part]), torch.tensor(labels[part]))
    found = metrics.result()
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert found["pr_auc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-3)
    assert found["logloss"] == pytest.approx(log_loss(labels, scores), abs=1e-6)
    assert found["calibration"] == pytest.approx(scores.sum() / labels.sum(), abs=1e-6)
    assert found["ece"] < 0.02


def test_masked_labels_do_not_count():
    metrics = BinaryMetrics()
    metrics.update(torch.tensor([1.0, -1.0, 9.0]), torch.tensor([1.0, 0.0, float("nan")]))
    assert metrics.result()["rows"] == 2
    assert metrics.result()["auc"] == 1.0


def test_late_labels_are_no_rows_but_have_arrived():
    metrics = BinaryMetrics()
    late = torch.tensor([False, False, False, True, True])
    metrics.update(torch.zeros(5), torch.tensor([1.0, 0.0, 0.0, 1.0, float("nan")]), late)
    found = metrics.result()
    assert (found["rows"], found["base_rate"]) == (3, pytest.approx(1 / 3))
    assert found["calibration"] == pytest.approx(1.5)
    assert found["calibration_arrived"] == pytest.approx(0.75)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_auc(label):
    metrics = BinaryMetrics()
    metrics.update(torch.zeros(3), torch.full((3,), label))
    assert metrics.result()["auc"] is None


def test_no_rows_have_no_metrics():
    found = BinaryMetrics().result()
    assert found.pop("rows") == 0
    assert set(found.values()) == {None}


def test_ties_count_half():
    metrics = BinaryMetrics()
    metrics.update(torch.zeros(4), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert metrics.result()["auc"] == pytest.approx(0.5)


def test_effective_rank_of_known_matrices():
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1.0)
    assert effective_rank(torch.eye(6)) == pytest.approx(6.0)
