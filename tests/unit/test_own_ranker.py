"""The recipe of the how-to, as it stands there; and declarations that do not fit."""

import dataclasses
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from feature_store.contracts.errors import InputError
from feature_store.contracts.rankers import RankerDeclaration
from jobs.commands.init import rankers_of
from jobs.datasets.registry import dataset_spec
from jobs.recipes import recipe, toy
from jobs.settings import Home
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from tests.architecture.sources import ROOT

SPEC = dataset_spec("simulated", "")


@pytest.fixture
def shown(tmp_path: Path):
    page = (ROOT / "docs" / "howto" / "own_ranker.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "ranked.py").write_text(code)
    return recipe(f"{tmp_path / 'ranked.py'}:build")


def test_the_recipe_of_the_page_makes_its_ranker(shown):
    [slim] = rankers_of(shown, SPEC)
    own = shown.of_ranker(slim).ranking.families["ctr"]
    assert own.projection == 32
    ranker = RankingObjective(RankingInputs.of(SPEC, slim.learns, ()), own).model
    assert ranker.experts.gates.shape == (len(SPEC.labels_of("ctr")), 4)


def test_without_a_word_there_is_a_ranker_for_the_labels_of_each_upstream():
    found = rankers_of(toy(), SPEC)
    assert [(r.name, r.family, r.learns) for r in found] == [
        ("ctr_ranker", "ctr", "ctr"),
        ("cvr_ranker", "cvr", "cvr"),
    ]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"name": "ctr"}, "names of their own: ctr"),
        ({"pools": ("nobody",)}, "pools names nobody"),
        ({"learns": "nobody"}, "learns nobody"),
        ({"family": "trees"}, "no such family"),
        ({"model": {"wings": 2}}, "does not have"),
        ({"model": {"projection": "wide"}}, "another type"),
    ],
)
def test_what_does_not_fit_is_refused(declared, said):
    ranker = RankerDeclaration(**{"name": "mine", "learns": "ctr", "pools": ("ctr",)} | declared)
    with pytest.raises(InputError, match=said):
        rankers_of(dataclasses.replace(toy(), rankers=(ranker,)), SPEC)


def test_a_ranker_reads_some_pool_once():
    for pools in ((), ("ctr", "ctr")):
        with pytest.raises(ValidationError, match="pools must be some"):
            RankerDeclaration(name="mine", learns="ctr", pools=pools)


def test_a_changed_ranker_is_another_recipe_and_a_home_takes_it(tmp_path):
    first, second = rankers_of(toy(), SPEC)
    digests = {toy().of_ranker(r).digest(("ranking",)) for r in (first, second)}
    assert len(digests) == 2
    home = Home(
        dataset="simulated", recipe="toy", first_ds="2025-03-01", start_ds="2025-03-02",
        rankers=(first,),
    )  # fmt: skip
    home.save(tmp_path)
    home.model_copy(update={"rankers": (first, second)}).save(tmp_path)
    assert Home.load(tmp_path).rankers == (first, second)
