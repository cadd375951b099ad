"""Rankers over pools of a small simulated world: lags, back inference, placebos, what is kept."""

import dataclasses

import numpy as np
import pytest

from experiments.harness.design import Cell
from experiments.ranking import downstream, projection
from experiments.ranking import embedded as worlds
from experiments.ranking.embedded import Days, embedded
from experiments.ranking.rankers import ALL, Ranked, measured
from experiments.upstream_days import Life, UpstreamVariant
from tests.brief_recipe import BRIEF

pytestmark = pytest.mark.integration

DAYS = Days(recipe=BRIEF, window=1, learn=1, measure=1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return dataclasses.replace(DAYS, cache=str(tmp_path_factory.mktemp("worlds")))


def test_vectors_of_a_world_are_kept_for_the_next_command(kept, monkeypatch):
    made = embedded(3, kept)
    embedded.cache_clear()
    monkeypatch.setattr(worlds, "_lived", None)
    again = embedded(3, kept)
    for key in ALL:
        for first, second in ((made.daily, again.daily), (made.back, again.back)):
            np.testing.assert_array_equal(first[key].vectors_DNE, second[key].vectors_DNE)
            assert first[key].vectors_DNE.shape[0] == 3
    users = made.daily["ctr", "user"].vectors_DNE, made.back["ctr", "user"].vectors_DNE
    np.testing.assert_array_equal(users[0][1:], users[1][1:])
    assert np.nanmax(np.abs(users[0][0] - users[1][0])) > 0, "a later model says it again"


def test_all_vectors_of_an_entity_on_a_day_are_the_same(kept):
    """So that the last of a day is the mean of it, and no experiment compares the two."""
    world = embedded(3, kept).world
    life = Life(world, UpstreamVariant(name="x"), kept.upstream, references=False)
    life.begin((kept.day(0),))
    rows = life.impressions(kept.day(1))[0]
    keys, counts = np.unique(rows["key:user"], return_counts=True)
    mine = np.flatnonzero(rows["key:user"] == keys[counts.argmax()])
    vectors = life.trainer.embed({n: a[mine] for n, a in rows.items()})["user"].numpy()
    assert len(mine) > 1
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-6)


def test_a_ranker_is_measured_with_the_pools_of_the_day_before(kept):
    def lift(variant):
        (found,) = measured(variant, "ctr", 3, kept)
        assert 0 < found["auc_true"] < 1
        return found["lift"]

    assert lift(Ranked(name="none")) == 0
    both = lift(Ranked(name="x", sets=ALL))
    assert both == lift(Ranked(name="x", sets=ALL)), "deterministic"
    leak, placebo = (
        Ranked(name="x", sets=ALL, lag=0),
        Ranked(name="x", sets=ALL, replaced="shuffled", placebo=True),
    )
    assert len({both, lift(leak), lift(placebo)}) == 3


def test_designs_fit_their_variants_and_published_numbers(kept):
    for ranker in ("ctr", "cvr"):
        made = downstream.design(downstream.Options(ranker=ranker, cache=kept.cache))
        assert made.name == f"downstream-{ranker}"
        assert all(p.variant in {v.name for v in made.variants} for p in made.published)
        elsewhere = downstream.design(downstream.Options(ranker=ranker))
        cell = Cell(data="simulated", variant=made.variants[0], seed=0)
        assert made.key(cell) == elsewhere.key(cell), "where vectors are kept decides nothing"
    with pytest.raises(ValueError, match="ranker: expected ctr"):
        downstream.Options(ranker="graph")
    options = projection.Options(**dataclasses.asdict(kept))
    quarter = next(v for v in projection.VARIANTS if v.name.startswith("512"))
    made = projection.design(options).run(Cell(data="simulated", variant=quarter, seed=3))
    assert made[quarter.name].rounds[0]["rows_per_s"] > 0
