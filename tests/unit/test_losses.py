"""The losses by hand, at extremes, and with empty sides."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from models.nn.sampled_softmax import (
    NO_USER,
    Pool,
    Positives,
    SampledSoftmax,
    log_q_exact,
    log_q_linear,
    log_q_of_either,
)
from models.training.delayed import DelayedLabels
from models.training.delayed import multi_task_bce as multi_task_bce_of_rows

NAN = math.nan


def positives(query, item, *, ids=(1,), users=(1,), log_q=None):
    rows = len(query)
    return Positives(
        query_RD=query,
        item_RD=item,
        item_id_R=torch.tensor(ids),
        user_id_R=torch.tensor(users),
        log_q_R=torch.zeros(rows) if log_q is None else log_q,
    )


def pool(item, *, ids=(2,), users=None):
    count = len(item)
    return Pool(
        item_PD=item,
        item_id_P=torch.tensor(ids),
        user_id_P=torch.tensor(users or [NO_USER] * count),
        log_q_P=torch.zeros(count),
    )


def multi_task_bce(logits, labels, weight):
    """Of impressions, all of whose labels are known at once."""
    delayed = DelayedLabels(logits.shape[1], "taken_back")
    late = torch.zeros(len(logits), dtype=torch.bool)
    return multi_task_bce_of_rows(logits, labels, late, weight, delayed)


def test_bce_by_hand_with_a_masked_label():
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    expected = (math.log(2) + math.log(1 + math.e)) / 2 + 3 * math.log(1 + math.e)
    found = multi_task_bce(logits, labels, torch.tensor([1.0, 3.0]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_bce_of_masked_rows_has_no_gradient():
    logits = torch.zeros(2, 1, requires_grad=True)
    labels = torch.tensor([[1.0], [NAN]])
    multi_task_bce(logits, labels, torch.ones(1)).backward()
    assert logits.grad.tolist() == [[-0.5], [0.0]]


@pytest.mark.parametrize("rows", [0, 3])
def test_bce_without_any_label_is_zero(rows):
    logits = torch.zeros(rows, 2, requires_grad=True)
    loss = multi_task_bce(logits, torch.full((rows, 2), NAN), torch.ones(2))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("score", [1e9, -1e9])
def test_bce_stays_finite_at_extremes(score):
    for label in (0.0, 1.0):
        loss = multi_task_bce(torch.tensor([[score]]), torch.tensor([[label]]), torch.ones(1))
        assert math.isfinite(loss.item())


def test_bce_is_linear_in_the_task_weights():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    weight = torch.tensor([0.5, 1.0, 2.0])
    single = [
        multi_task_bce(logits[:, t : t + 1], labels[:, t : t + 1], torch.ones(1)) for t in range(3)
    ]
    expected = sum(w * x for w, x in zip(weight, single, strict=True))
    assert multi_task_bce(logits, labels, weight).item() == pytest.approx(expected.item(), rel=1e-6)


def test_softmax_by_hand():
    softmax = SampledSoftmax(1.0)
    query, item, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.eye(2)[1:]
    loss = softmax(positives(query, item, log_q=torch.tensor([-1.0])), pool(other))
    hit = 0.5 + 1.0
    assert loss.item() == pytest.approx(math.log(math.exp(hit) + 1) - hit, abs=1e-6)


def test_softmax_without_valid_negatives_is_zero():
    softmax = SampledSoftmax()
    query = torch.randn(1, 4, requires_grad=True)
    for masked in (pool(torch.randn(1, 4), ids=(1,)), pool(torch.randn(1, 4), users=[1])):
        loss = softmax(positives(query, torch.randn(1, 4)), masked).sum()
        loss.backward()
        assert loss.item() == 0
        assert torch.isfinite(query.grad).all()


def test_softmax_of_no_positives_is_zero_and_has_a_gradient_path():
    softmax = SampledSoftmax()
    none = positives(torch.empty(0, 4), torch.empty(0, 4), ids=(), users=())
    loss = softmax(none, pool(torch.randn(1, 4))).sum()
    loss.backward()
    assert loss.item() == 0
    assert softmax.log_scale.grad.item() == 0


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_softmax_stays_finite_at_extremes(size):
    softmax = SampledSoftmax(0.01)
    query = torch.full((1, 2), size, requires_grad=True)
    loss = softmax(positives(query, torch.ones(1, 2)), pool(-torch.ones(1, 2))).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(query.grad).all()


def test_temperature_cannot_fall_below_its_bound():
    softmax = SampledSoftmax(0.07)
    with torch.no_grad():
        softmax.log_scale.fill_(50.0)
    assert softmax.scale().item() == pytest.approx(100.0, rel=1e-5)


def test_softmax_gradients_reach_every_side():
    torch.manual_seed(0)
    softmax = SampledSoftmax()
    query, item, other = (torch.randn(2, 3, requires_grad=True) for _ in range(3))
    sides = positives(query, item, ids=(1, 2), users=(1, 2)), pool(other, ids=(3, 4))
    softmax(*sides).sum().backward()
    for tensor in (query, item, other, softmax.log_scale):
        assert tensor.grad.abs().sum() > 0


def test_q_of_two_sources_by_hand():
    count, total = torch.tensor([3, 1, 0]), torch.tensor(100)
    other, others = torch.tensor([2, 0, 5]), torch.tensor(50)
    expected = {
        False: 10 * count / 100 + 20 * other / 50,
        True: 1 - (1 - count / 100) ** 10 * (1 - other / 50) ** 20,
    }
    for exact, estimate in ((False, log_q_linear), (True, log_q_exact)):
        sources = estimate(count, total, 10), estimate(other, others, 20)
        found = log_q_of_either(*sources, exact=exact).exp()
        torch.testing.assert_close(found, expected[exact], atol=1e-6, rtol=1e-5)


def test_q_of_what_is_certain_in_one_source_is_one():
    certain, rare = torch.tensor([0.0]), torch.tensor([-3.0])
    assert log_q_of_either(certain, rare, exact=True).item() == 0


@pytest.mark.parametrize("distinct", [False, True])
def test_softmax_equals_a_loop(distinct):
    random = np.random.default_rng(0)
    query, item, other = (
        torch.tensor(random.standard_normal((n, 4)), dtype=torch.float32) for n in (3, 3, 5)
    )
    softmax = SampledSoftmax(0.5)
    ids, users, pool_ids, pool_users = (1, 2, 3), (1, 1, 2), (1, 4, 5, 5, 4), [1, -1, -1, 2, -1]
    entries = dataclasses.replace(pool(other, ids=pool_ids, users=pool_users), distinct=distinct)
    found = softmax(positives(query, item, ids=ids, users=users), entries)
    for i in range(3):
        hit = float(query[i] @ item[i]) / 0.5
        scores = [hit]
        masked = [pool_ids[j] == ids[i] or pool_users[j] == users[i] for j in range(5)]
        for j in range(5):
            alike = [k for k in range(5) if pool_ids[k] == pool_ids[j]] if distinct else [j]
            if j == alike[0] and not any(masked[k] for k in alike):
                scores.append(float(query[i] @ other[j]) / 0.5)
        expected = math.log(sum(math.exp(s) for s in scores)) - hit
        assert found[i].item() == pytest.approx(expected, abs=1e-5)
