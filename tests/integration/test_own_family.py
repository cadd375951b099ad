"""The family of models that the how-to shows, outside of the project, as it stands there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.errors import InputError
from feature_store.contracts.tables import raw_table
from feature_store.lake.lake import Lake
from feature_store.lake.schemas import unpack
from jobs.engine.code import code_digest
from models.registry import default_config, family, reads
from tests.architecture.sources import ROOT
from tests.data_fixtures import Home

pytestmark = pytest.mark.integration
HISTORY, FIRST = "2025-03-01", "2025-03-02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = (ROOT / "docs" / "howto" / "own_family.md").read_text()
    (tmp_path / "two_tower").mkdir()
    files = ("two_tower/config.py", "two_tower/family.py", "recipe.py")
    for name, code in zip(files, re.findall(r"```python\n(.*?)```", page, re.DOTALL), strict=True):
        (tmp_path / name).write_text(code)
    return tmp_path


def test_it_is_trained_embeds_and_goes_stale_with_its_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(folder / "home", monkeypatch, capsys)
    recipe = f"{folder / 'recipe.py'}:build"
    home.must("init", "--dataset", "simulated", "--recipe", recipe, "--days", "1")
    made = ("--steps", "simulate,ingest,validate,count")
    home.must("run", "--from", HISTORY, "--to", FIRST, *made)
    home.must("train", "--ds", FIRST, "--upstream", "pair")
    home.must("infer", "--ds", FIRST, "--upstream", "pair")
    rows = Lake(home.path / "lake").read(raw_table("pair", "user"), FIRST, columns=["embedding"])
    vectors = unpack(rows["embedding"], 24)
    assert len(vectors) > 100
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=1e-3)
    assert len(np.unique(vectors, axis=0)) > 50
    assert _states(home)["train"] == "done"
    code = folder / "two_tower" / "family.py"
    code.write_text(code.read_text().replace('"""Two towers, and', '"""Two towers:'))
    assert _states(home)["train"] == "done", "words decide nothing"
    code.write_text(code.read_text().replace("self.scale *", "2 * self.scale *"))
    assert (_states(home)["train"], _states(home)["count"]) == ("stale", "done")


def _states(home: Home) -> dict[str, str]:
    code_digest.cache_clear()  # as in a process of its own
    said = json.loads(home.derm("status", "--json").out)
    [day] = [day for day in said["days"] if day["ds"] == FIRST]
    return {s["step"]: s["state"] for s in day["steps"] if s.get("upstream") in (None, "pair")}


def test_what_is_none_is_refused_with_its_reason(folder: Path) -> None:
    path = folder / "two_tower"
    assert (reads(str(path)), default_config(str(path)).embedding_dim) == ("rows", 16)
    assert family(str(path)).version == 1
    for name in ("nothing", "two_tower", str(folder)):
        with pytest.raises(InputError, match=r"derm.*config.py and family.py"):
            family(name)
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.py").write_text("DEFAULT = 1 / 0\n")
    (broken / "family.py").write_text("")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        default_config(str(broken))
    with pytest.raises(InputError, match="FAMILY"):
        family(str(broken))
