"""SASRec and its losses against published formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from models.sasrec.config import SasRecConfig
from models.sasrec.model import SasRec
from models.sasrec.objective import SasRecObjective, gbce

ITEMS = 12
LENGTHS = np.array([4, 1, 6])
SMALL = SasRecConfig(dim=8, max_len=6, num_layers=1, num_heads=2, dropout=0.0, negatives=5)


def batch(**changed) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    arrays = {
        "key:user": np.arange(3),
        "length": LENGTHS,
        "item": random.integers(0, ITEMS, 11),
        "next": random.integers(0, ITEMS, 11),
        "negative": random.integers(0, ITEMS, 5),
    } | changed
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def objective(**changed) -> SasRecObjective:
    torch.manual_seed(0)
    config = SasRecConfig(**{f: getattr(SMALL, f) for f in SMALL.__slots__} | changed)
    return SasRecObjective(SasRec(ITEMS, config), config)


def parts(made: SasRecObjective, rows: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return made.model(rows["item"], rows["length"]), made.model.items.weight


def test_softmax_over_the_whole_catalogue_is_cross_entropy():
    made, rows = objective(), batch(negative=np.arange(ITEMS))
    query_RD, weight = parts(made, rows)
    expected = functional.cross_entropy(query_RD @ weight.T, rows["next"])
    torch.testing.assert_close(made(rows)["total"], expected, atol=1e-5, rtol=1e-5)


def test_bce_equals_the_formula_and_leaves_hits_out():
    made = objective(loss="bce")
    rows = batch(negative=np.random.default_rng(1).integers(0, ITEMS, 11))
    rows["negative"][3] = rows["next"][3]
    query_RD, weight = parts(made, rows)
    hit_R = (query_RD * weight[rows["next"]]).sum(1)
    miss_R = (query_RD * weight[rows["negative"]]).sum(1)
    each_R = -torch.log(torch.sigmoid(hit_R))
    each_R = each_R - torch.where(
        rows["negative"] == rows["next"], 0.0, torch.log(1 - torch.sigmoid(miss_R))
    )
    torch.testing.assert_close(made(rows)["total"], each_R.mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.5, 0.75, 1.0])
def test_gbce_equals_the_published_transformation_of_the_positive(t):
    """There the power is in the logit: s' = - log(sigmoid(s) ** - beta - 1), then plain BCE."""
    random = torch.Generator().manual_seed(0)
    hit_R = torch.randn(7, generator=random).double()
    miss_RN = torch.randn(7, 5, generator=random).double()
    share = 5 / (ITEMS - 1)
    beta = share * (t * (1 - 1 / share) + 1 / share)
    moved_R = -torch.log(torch.sigmoid(hit_R) ** -beta - 1)
    logits = torch.cat([moved_R[:, None], miss_RN], dim=1)
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    expected_R = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    nothing = torch.zeros(7, 5, dtype=torch.bool)
    found_R = gbce(hit_R, miss_RN, nothing, catalogue=ITEMS, t=t)
    torch.testing.assert_close(found_R, expected_R.mean(dim=1), atol=1e-9, rtol=1e-9)


def test_gbce_by_hand():
    """t = 1: beta is the share of drawn negatives, a half; one of two negatives is the positive."""
    found = gbce(
        torch.zeros(1), torch.zeros(1, 2), torch.tensor([[True, False]]), catalogue=5, t=1.0
    )
    assert float(found) == pytest.approx((0.5 * math.log(2) + math.log(2)) / 3)


@pytest.mark.parametrize("loss", ["bce", "gbce", "softmax"])
def test_every_parameter_learns(loss):
    made = objective(loss=loss)
    negative = np.random.default_rng(2).integers(0, ITEMS, 11 if loss == "bce" else 9)
    made(batch(negative=negative))["total"].backward()
    for name, parameter in made.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_scores_are_those_of_the_newest_item_and_padding_changes_nothing():
    made, rows = objective(), batch()
    query_RD, weight = parts(made, rows)
    scores = made.model.scores(rows["item"], rows["length"])
    torch.testing.assert_close(scores, query_RD[[3, 4, 10]] @ weight.T)
    padded = made.model(rows["item"], rows["length"], padded=True)
    torch.testing.assert_close(padded, query_RD, atol=1e-5, rtol=1e-5)
