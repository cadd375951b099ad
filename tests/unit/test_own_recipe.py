"""A recipe in a file of its user: found, recorded by digest, refused when it changed meanwhile."""

import json
from pathlib import Path

import pytest

from feature_store.contracts.errors import InputError
from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.cli import main
from jobs.engine.runner import open_context
from jobs.recipes import recipe, toy
from jobs.settings import Home, Settings

_RECIPE = """
import dataclasses
from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.recipes import Recipe, toy

def build() -> Recipe:
    wide = UpstreamDeclaration(
        name="wide", learns_as="ctr", model={"tower.token_dim": 32}, w=0.5, every_days=7,
        published=False,
    )
    return dataclasses.replace(toy(), name="mine", upstreams=(wide,))

def nothing():
    return 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my recipe.py"
    path.write_text(_RECIPE)
    return path


@pytest.fixture
def home(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = file.parent / "home"
    monkeypatch.setenv("DERM_HOME", str(root))
    monkeypatch.chdir(file.parent)
    assert main(["init", "--dataset", "simulated", "--recipe", "my recipe.py:build"]) == 0
    return root


def test_a_file_adds_an_upstream_to_the_data_set(home: Path, file: Path) -> None:
    declared = Home.load(home)
    assert [u.name for u in declared.upstreams] == ["ctr", "cvr", "wide"]
    assert declared.recipe == f"{file}:build"
    ctx = open_context(Settings(home=home), "2025-03-01", "wide")
    assert ctx.own_recipe.model.embedding_dim == 2 * recipe("toy").model.embedding_dim
    assert ctx.own_recipe.aggregation.w == 0.5
    assert ctx.recipe.aggregation.w == 0.8
    assert [x.name for x in ctx.spec.labels_of("wide")] == ["click", "good_click"]
    assert ctx.pipeline.published == ("ctr", "cvr")


def test_a_file_that_changed_is_refused_until_it_is_recorded(
    home: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(_RECIPE.replace("w=0.5", "w=0.6"))
    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert "the file of the recipe changed" in said
    assert "derm init" in said
    # An upstream that is merged differently is another one: its home has days of the old one.
    arguments = ["init", "--dataset", "simulated", "--recipe", f"{file}:build", "--json"]
    assert main(arguments) == 2
    assert "already holds another pipeline" in json.loads(capsys.readouterr().out)["error"]["what"]
    file.write_text(_RECIPE + "# a remark\n")
    assert main(arguments) == 0
    assert main(["status"]) == 0


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tiny", "tiny"),
        ("gone.py:build", "No such file"),
        ("my recipe.py:nothing", "int"),
        ("my recipe.py:nobody", "nobody"),
        ("broken.py:build", "SyntaxError"),
    ],
)
def test_what_is_no_recipe_is_named(
    file: Path, name: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.py").write_text("def build(:\n")
    with pytest.raises(InputError, match=found):
        recipe(name)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"tower.width": 32}, "token_dim"),
        ({"tower.token_dim": "32"}, "int, as"),
        ({"dot_product": 1}, "bool, as True"),
        ({"overtower_input.x": 1}, "no fields of its own"),
    ],
)
def test_a_model_is_changed_where_it_has_a_field(model: dict, expected: str) -> None:
    upstream = UpstreamDeclaration(name="wide", model=model)
    with pytest.raises(InputError, match=expected) as error:
        toy().of(upstream)
    assert error.value.where.startswith("upstream wide: model.")
