"""Cells of the experiment on a tiny market, and its plan."""

from functools import partial

import pytest
import torch

from experiments.harness.design import Cell
from experiments.id_tables.facets import Rows, one_for_all, shuffled
from experiments.id_tables.grids import MEASURES, Options, design, variants

TINY = Options(
    users=20, pins=30, history=3, stalest=0, window=1, tested=1, width=4, passes=1, trainings=1
)


def test_cells_measure_everything_and_bits_are_another_look_at_the_same_ranker() -> None:
    made = design(TINY)
    named = {v.name: v for v in made.variants}
    cell = partial(Cell, data="market", seed=0)
    found = {
        name: made.run(cell(variant=named[name]))[name].rounds[0]
        for name in ("none", "both", "both, 4 bits", "both, frozen")
    }
    for metrics in found.values():
        assert metrics.keys() == {m.name for m in MEASURES}
        assert 0.3 < metrics["auc_true"] < 1
    assert found["both"]["auc_true"] != found["none"]["auc_true"]
    assert found["both"]["auc_true"] != found["both, frozen"]["auc_true"]
    assert found["both, 4 bits"]["auc_true"] != found["both"]["auc_true"]
    assert found["both, 4 bits"]["auc_true"] == pytest.approx(found["both"]["auc_true"], abs=0.02)
    again = made.run(cell(variant=named["both"]))["both"].rounds[0]
    assert again == found["both"], "the bits before it did not stay in the tables"


def test_staler_tables_than_the_market_has_are_not_compared() -> None:
    assert not [v.name for v in variants(0) if v.stale]
    assert [v.stale for v in variants(30) if v.stale] == [7, 14, 30]
    for stalest in (0, 90):
        made = design(Options(stalest=stalest))
        assert {h.variant for h in made.hypotheses} <= {v.name for v in made.variants}
    with pytest.raises(ValueError, match="window"):
        design(Options(window=0))


def test_controls_keep_everything_but_who_has_which_row() -> None:
    weight = torch.arange(12.0).view(6, 2)
    count = torch.tensor([0, 5, 0, 5, 5, 0], dtype=torch.int32)
    facet = {"user": Rows(weight, count), "pin": Rows(weight, count)}
    dealt = shuffled(facet, seed=1)["user"]
    assert torch.equal(dealt.count_R, count)
    assert torch.equal(dealt.weight_RD[[0, 2, 5]], weight[[0, 2, 5]])
    assert torch.equal(dealt.weight_RD[[1, 3, 4]].sort(dim=0)[0], weight[[1, 3, 4]])
    assert (one_for_all(facet)["pin"].weight_RD == weight[0]).all()
