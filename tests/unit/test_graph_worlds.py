"""One cell of the experiment on a tiny market."""

import pytest

from experiments.graph.worlds import MEASURES, VARIANTS, WorldOptions, design
from experiments.harness.design import Cell

TINY = WorldOptions(users=60, pins=150, days=4, passes=3, width=8, sampled=50)


@pytest.mark.parametrize("variant", VARIANTS[:2] + VARIANTS[3:4], ids=lambda v: v.name)
def test_a_cell_measures_everything(variant) -> None:
    made = design(TINY)
    cell = Cell(data="market", variant=variant, seed=0)
    found = made.run(cell)[variant.name].rounds[0]
    assert found.keys() == {m.name for m in MEASURES}
    assert found["link_mrr"] > 0.02
    assert 0.4 < found["raw_auc"] < 1
    assert 0.3 < found["cosine_user"] <= 1
    assert found == made.run(cell)[variant.name].rounds[0]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="days"):
        WorldOptions(days=0)
